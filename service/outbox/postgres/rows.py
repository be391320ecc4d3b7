"""The statements that find rows for people: the place of each event and its history.

The search begins at the events for the newest of all or for given ids, else at the places of one
state. Reads take no lock that a writer waits for.
"""

from __future__ import annotations

from typing import Any, LiteralString

from service.outbox.event import Meta
from service.outbox.model import Filter, State
from service.outbox.storable import storable


def meta_of(
    moved_id: str | None, wire_id: str | None, environment: str | None, trace: str | None = None
) -> Meta:
    """The rare attributes of an event from its columns."""
    return Meta(wire_id, environment, trace=trace, moved_id=moved_id)


# Milliseconds since 1970; can bound an index scan.
NOW_MS = "floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint"

# A condition whose parameter is null is dropped when planning. `seq > -1` is that of the index by
# owner.
WANTED = f"""
    (%(ids)s::text[] IS NULL OR o.event_id = ANY(%(ids)s))
AND (%(owner)s::text IS NULL OR (o.owner = %(owner)s AND o.seq > -1))
AND (%(alias)s::text IS NULL OR o.seq = ANY(ARRAY(
    SELECT seq FROM outbox
    WHERE owner = %(owner)s AND wire_id = %(alias)s AND length(wire_id) <= 255
    UNION ALL SELECT seq FROM outbox WHERE inngest_id = %(alias)s)))
AND (%(user_id)s::text IS NULL OR o.user_id = %(user_id)s)
AND (%(name)s::text IS NULL OR o.name = %(name)s)
AND (%(older_than_ms)s::bigint IS NULL
     OR o.accepted_at_ms <= {NOW_MS} - %(older_than_ms)s::bigint)
AND (%(since_ms)s::bigint IS NULL OR o.accepted_at_ms >= %(since_ms)s)
AND (%(until_ms)s::bigint IS NULL OR o.accepted_at_ms < %(until_ms)s)
AND (%(prefix)s::text IS NULL OR (o.event_id >= %(prefix)s AND o.event_id < %(prefix_end)s))
AND (%(before_seq)s::bigint IS NULL OR o.seq < %(before_seq)s)
AND (%(after_seq)s::bigint IS NULL OR o.seq > %(after_seq)s)
"""

_COLUMNS = """
o.event_id, o.name, o.owner, o.user_id, p.state, p.attempts, p.sends, p.isolated,
o.accepted_at_ms, p.first_sent_at_ms, p.settled_at_ms,
CASE p.state WHEN 'pending' THEN
    greatest(0, coalesce(extract(epoch FROM p.due_at - clock_timestamp()), 0))::float8 END,
CASE p.state WHEN 'delivering' THEN
    greatest(0, extract(epoch FROM p.lease_until - clock_timestamp()))::float8 END,
p.reason, p.detail,
ARRAY(SELECT at_ms FROM outbox_notes n WHERE n.seq = o.seq ORDER BY at_ms, note),
ARRAY(SELECT note FROM outbox_notes n WHERE n.seq = o.seq ORDER BY at_ms, note),
octet_length(o.payload), o.seq, o.wire_id, o.environment, o.inngest_id,
(SELECT inngest_id_prefix FROM outbox_meta)
"""

_IN_PLACE = """
(%(reason)s::text IS NULL OR p.reason = %(reason)s)
AND (%(state)s::text IS NULL OR p.state = %(state)s)
AND (NOT %(never_sent)s::boolean
     OR (p.state = 'pending' AND p.sends = 0 AND p.first_sent_at_ms IS NULL))
"""

# The bounds once more: the planner does not carry them over to a place.
_WITHIN = """
(%(before_seq)s::bigint IS NULL OR p.seq < %(before_seq)s)
AND (%(after_seq)s::bigint IS NULL OR p.seq > %(after_seq)s)
"""

# Many ids may begin so: the read stays bounded.
_BEGINNING_SO = f"""
FROM (
    SELECT seq FROM outbox WHERE event_id >= %(prefix)s AND event_id < %(prefix_end)s
    ORDER BY event_id DESC LIMIT 10000
) AS f
CROSS JOIN LATERAL (SELECT * FROM outbox WHERE outbox.seq = f.seq OFFSET 0) AS o
CROSS JOIN LATERAL (SELECT * FROM outbox_rows WHERE outbox_rows.seq = f.seq OFFSET 0) AS p
WHERE {WANTED} AND {_IN_PLACE} ORDER BY o.seq DESC LIMIT %(limit)s
"""

_ANYWHERE = f"""
FROM outbox AS o JOIN outbox_rows AS p USING (seq)
WHERE {_WITHIN} AND {WANTED} AND {_IN_PLACE} ORDER BY o.seq DESC LIMIT %(limit)s
"""

# What requests ask, without a condition that only a plan of its own could drop: it is planned once.
ROWS_BY_IDS = f"""
SELECT {_COLUMNS}
FROM (SELECT * FROM outbox WHERE event_id = ANY(%(ids)s::text[]) OFFSET 0) AS o
CROSS JOIN LATERAL (SELECT * FROM outbox_rows WHERE outbox_rows.seq = o.seq OFFSET 0) AS p
ORDER BY o.seq DESC LIMIT %(limit)s
"""

PLACES: dict[State, LiteralString] = {
    State.PENDING: """
        SELECT seq, 'pending' AS state, attempts, sends, isolated, first_sent_at_ms,
               NULL::bigint AS settled_at_ms, due_at, NULL::timestamptz AS lease_until,
               NULL::text AS reason, NULL::text AS detail
        FROM outbox_ready WHERE due_at IS NULL AND seq >= (SELECT ready_from FROM outbox_mark)
        UNION ALL
        SELECT seq, 'pending', attempts, sends, isolated, first_sent_at_ms, NULL, due_at, NULL,
               NULL, NULL
        FROM outbox_ready WHERE due_at IS NOT NULL AND NOT isolated
             AND due_at >= (SELECT due_from FROM outbox_mark)
        UNION ALL
        SELECT seq, 'pending', attempts, sends, isolated, first_sent_at_ms, NULL, due_at, NULL,
               NULL, NULL
        FROM outbox_ready WHERE due_at IS NOT NULL AND isolated
             AND due_at >= (SELECT isolated_from FROM outbox_mark)""",
    State.DELIVERING: """
        SELECT u.seq, 'delivering' AS state, u.attempts, u.sends, u.isolated,
               coalesce(u.first_sent_at_ms, c.claimed_at_ms) AS first_sent_at_ms,
               NULL::bigint AS settled_at_ms, NULL::timestamptz AS due_at, c.lease_until,
               NULL::text AS reason, NULL::text AS detail
        FROM outbox_claims c, unnest(c.seqs, c.attempts, c.sends, c.isolated, c.first_sent_at_ms)
            AS u(seq, attempts, sends, isolated, first_sent_at_ms)
        WHERE c.lease_until >= (SELECT lease_from FROM outbox_mark)""",
    State.SENT: """
        SELECT seq, 'sent' AS state, attempts, sends, isolated, first_sent_at_ms,
               NULL::bigint AS settled_at_ms, NULL::timestamptz AS due_at,
               NULL::timestamptz AS lease_until, NULL::text AS reason, NULL::text AS detail
        FROM (SELECT * FROM outbox_sent
              WHERE sent_at_ms >= (SELECT sent_from FROM outbox_mark) OFFSET 0) AS s""",
    State.DELIVERED: """
        SELECT seq, 'delivered' AS state, attempts, sends, isolated, first_sent_at_ms,
               settled_at_ms, NULL::timestamptz AS due_at, NULL::timestamptz AS lease_until,
               reason, detail
        FROM outbox_done WHERE NOT dead""",
    State.DEAD: """
        SELECT seq, 'dead' AS state, attempts, sends, isolated, first_sent_at_ms,
               settled_at_ms, NULL::timestamptz AS due_at, NULL::timestamptz AS lease_until,
               reason, detail
        FROM outbox_done WHERE dead""",
}

# Within a range of seq, the lanes of pending rows are read in its order.
_PENDING_IN_RANGE = """
    SELECT seq, 'pending' AS state, attempts, sends, isolated, first_sent_at_ms,
           NULL::bigint AS settled_at_ms, due_at, NULL::timestamptz AS lease_until,
           NULL::text AS reason, NULL::text AS detail
    FROM outbox_ready"""


def _at_place(place: LiteralString) -> LiteralString:
    """Where the rows of a place are found.

    The places are sorted before their events are read, which end with the limit. OFFSET 0 keeps the
    planner from reading a whole table.
    """
    return f"""
FROM (SELECT * FROM ({place}) AS p WHERE {_WITHIN} ORDER BY p.seq DESC) AS p
CROSS JOIN LATERAL (SELECT * FROM outbox WHERE outbox.seq = p.seq OFFSET 0) AS o
WHERE {WANTED} AND {_IN_PLACE} ORDER BY p.seq DESC LIMIT %(limit)s
"""


def _rows(found: LiteralString) -> LiteralString:
    return f"SELECT {_COLUMNS} {found}"


def _count(found: LiteralString) -> LiteralString:
    return f"SELECT count(*) FROM (SELECT o.seq {found}) AS found"


ROWS_OF_PREFIX = _rows(_BEGINNING_SO)
ROWS = _rows(_ANYWHERE)
COUNT = _count(_ANYWHERE)
ROWS_PENDING_IN_RANGE = _rows(_at_place(_PENDING_IN_RANGE))
COUNT_PENDING_IN_RANGE = _count(_at_place(_PENDING_IN_RANGE))
ROWS_IN_STATE = {state: _rows(_at_place(place)) for state, place in PLACES.items()}
COUNT_IN_STATE = {state: _count(_at_place(place)) for state, place in PLACES.items()}


def rows_statement(wanted: Filter) -> LiteralString:
    """What finds the rows."""
    state = _place(wanted)
    if state is None:
        return ROWS_OF_PREFIX if wanted.ids is None and wanted.id_prefix else ROWS
    return ROWS_PENDING_IN_RANGE if _is_range_of(state, wanted) else ROWS_IN_STATE[state]


def count_statement(wanted: Filter) -> LiteralString:
    """What counts the rows."""
    state = _place(wanted)
    if state is None:
        return COUNT
    return COUNT_PENDING_IN_RANGE if _is_range_of(state, wanted) else COUNT_IN_STATE[state]


def filter_values(wanted: Filter) -> dict[str, Any]:
    """The parameters of a filter. No stored id has a NUL."""
    older = wanted.older_than_seconds
    state = _state(wanted)
    prefix = wanted.id_prefix and wanted.id_prefix.replace("\x00", "\ufffd")
    return {
        "ids": None if wanted.ids is None else [i.replace("\x00", "\ufffd") for i in wanted.ids],
        "state": state,
        "alias": wanted.alias and storable(wanted.alias),
        "owner": wanted.owner,
        "user_id": wanted.user_id,
        "name": wanted.name,
        "reason": wanted.reason,
        "older_than_ms": None if older is None else int(older * 1000),
        "since_ms": wanted.since_ms,
        "until_ms": wanted.until_ms,
        "prefix": prefix,
        "prefix_end": f"{prefix}\U0010ffff",
        "before_seq": wanted.before_seq,
        "after_seq": wanted.after_seq,
        "never_sent": wanted.never_sent,
        "limit": wanted.limit,
    }


def _place(wanted: Filter) -> State | None:
    """The state whose places are read, None when the search begins at the events.

    Within a range, the rows of an owner are found among that owner's events.
    """
    is_of_owner = wanted.owner is not None and wanted.after_seq is not None
    return None if wanted.ids is not None or is_of_owner else _state(wanted)


def _state(wanted: Filter) -> State | None:
    """Only dead rows have a reason."""
    return State.DEAD if wanted.reason is not None and wanted.state is None else wanted.state


def _is_range_of(state: State, wanted: Filter) -> bool:
    return state is State.PENDING and wanted.after_seq is not None
