"""The rows of an SQLite outbox as people see them."""

from __future__ import annotations

import enum
import itertools
import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec

from service.outbox.clock import wall_now_ms
from service.outbox.event import decode_meta
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Filter, Row, State
from service.outbox.sqlite.damage import is_unreadable

_COLUMNS = """
SELECT seq, event_id, name, owner, user_id, state, attempts, sends, isolated, accepted_at_ms,
       meta, first_sent_at_ms, settled_at_ms, due_at_ms, lease_until_ms, reason, detail,
       coalesce(history, '[]'), payload_bytes,
       (SELECT inngest_id_prefix FROM outbox_meta)
"""

PAST_ALL = 2**63 - 1

# Where the rows of a state are: reading a state reads no row of another.
PLACES = {
    State.PENDING: "(SELECT seq FROM outbox_ready)",
    State.DELIVERING: "(SELECT seq FROM outbox_claims)",
    State.SENT: "(SELECT seq FROM outbox_sent)",
    State.DELIVERED: "(SELECT seq FROM outbox_done WHERE dead = 0)",
    State.DEAD: "(SELECT seq FROM outbox_done WHERE dead = 1)",
}

# Each condition but the first is switched off by a NULL parameter.
_MATCHING = """
WHERE {in_state}
  AND (:owner IS NULL OR owner = :owner)
  AND (:user_id IS NULL OR user_id = :user_id)
  AND (:name IS NULL OR name = :name)
  AND (:reason IS NULL OR reason = :reason)
  AND (:accepted_before IS NULL OR accepted_at_ms <= :accepted_before)
  AND (:since IS NULL OR accepted_at_ms >= :since)
  AND (:until IS NULL OR accepted_at_ms < :until)
  AND (:prefix IS NULL OR (event_id >= :prefix AND event_id < :prefix_end))
  AND seq < :before AND seq > :after
  AND (NOT :never_sent OR (state = 'pending' AND sends = 0 AND first_sent_at_ms IS NULL))
ORDER BY seq DESC LIMIT :limit
"""

FIND = f"{_COLUMNS} FROM outbox_rows WHERE event_id = :id"


# Many ids may share a prefix: the limit bounds the read.
_BEGINNING_SO = """
SELECT seq FROM outbox WHERE event_id >= :prefix AND event_id < :prefix_end
ORDER BY event_id DESC LIMIT 10000
"""
_KNOWN_AS = """
SELECT seq FROM outbox
WHERE owner = :owner AND meta ->> 'wire_id' = :alias AND length(meta ->> 'wire_id') <= 255
UNION SELECT seq FROM outbox WHERE meta ->> 'moved_id' = :alias
"""
_HIGHEST_CHARACTER = "\U0010ffff"


class Way(enum.Enum):
    """By which index the rows of a filter are found."""

    IDS = enum.auto()
    ALIAS = enum.auto()
    OWNER = enum.auto()
    PREFIX = enum.auto()
    STATE = enum.auto()


def _matching(state: State | None, way: Way) -> str:
    source, first = "outbox_rows", f"state = '{state}'" if state else "true"
    if way is Way.IDS:
        source = "json_each(:ids) CROSS JOIN outbox_rows ON event_id = value"
    elif way is Way.ALIAS:
        source = f"({_KNOWN_AS}) CROSS JOIN outbox_rows USING (seq)"
    elif way is Way.PREFIX:
        source = f"({_BEGINNING_SO}) CROSS JOIN outbox_rows USING (seq)"
    elif way is Way.OWNER:
        first += " AND owner = :owner"
    elif state:
        source, first = f"{PLACES[state]} CROSS JOIN outbox_rows USING (seq)", "true"
    return f"FROM {source} {_MATCHING.format(in_state=first)}"


_FOUND = {(state, way): _matching(state, way) for state in (None, *State) for way in Way}
MATCHING = {place: f"{_COLUMNS} {found}" for place, found in _FOUND.items()}
COUNT = {place: f"SELECT count(*) FROM (SELECT seq {found})" for place, found in _FOUND.items()}

# One row, if it matches.
_IN_STATE = "seq = :seq AND (:state IS NULL OR state = :state)"
ONE = f"{_COLUMNS} FROM outbox_rows {_MATCHING.format(in_state=_IN_STATE)}"
_EVERY_PLACE = (
    "(" + " UNION ALL ".join(f"SELECT seq FROM {place}" for place in PLACES.values()) + ")"
)


def found_row(connection: sqlite3.Connection, event_id: str) -> Row | None:
    """The row of an event, None when there is none."""
    rows = connection.execute(FIND, {"id": event_id}).fetchall()
    return row_of(rows[0], wall_now_ms()) if rows else None


def matching(connection: sqlite3.Connection, wanted: Filter, now_ms: int) -> list[tuple[Any, ...]]:
    """The rows that match, newest first: the columns of `_COLUMNS`."""
    values = _values(wanted, now_ms)
    return connection.execute(MATCHING[wanted.state, _way(wanted)], values).fetchall()


def _way(wanted: Filter) -> Way:
    if wanted.ids is not None:
        return Way.IDS
    if wanted.alias is not None:
        return Way.ALIAS
    if wanted.owner is not None and (wanted.state is None or wanted.after_seq is not None):
        return Way.OWNER
    return Way.PREFIX if wanted.id_prefix is not None and wanted.state is None else Way.STATE


def count(connection: sqlite3.Connection, wanted: Filter, now_ms: int) -> int:
    """How many rows match, at most the limit."""
    values = _values(wanted, now_ms)
    [(found,)] = connection.execute(COUNT[wanted.state, _way(wanted)], values).fetchall()
    return int(found)


def _values(wanted: Filter, now_ms: int) -> dict[str, Any]:
    older = wanted.older_than_seconds
    return {
        "ids": None
        if wanted.ids is None
        else msgspec.json.encode(sorted(set(wanted.ids))).decode(),
        "alias": wanted.alias,
        "state": wanted.state,
        "owner": wanted.owner,
        "user_id": wanted.user_id,
        "name": wanted.name,
        "reason": wanted.reason,
        "accepted_before": None if older is None else now_ms - int(older * 1000),
        "since": wanted.since_ms,
        "until": wanted.until_ms,
        "prefix": wanted.id_prefix,
        "prefix_end": f"{wanted.id_prefix or ''}{_HIGHEST_CHARACTER}",
        "before": PAST_ALL if wanted.before_seq is None else wanted.before_seq,
        "after": wanted.after_seq or 0,
        "never_sent": wanted.never_sent,
        "limit": wanted.limit,
    }


def readable(connection: sqlite3.Connection, wanted: Filter, now_ms: int) -> list[tuple[Any, ...]]:
    """As `matching`, row by row, for a damaged file; unreadable rows are left out."""
    values = _values(wanted, now_ms)
    seqs = connection.execute(
        f"SELECT seq FROM {_place(wanted)} WHERE seq < :before AND seq > :after ORDER BY seq DESC",
        values,
    ).fetchall()
    found = _readable(connection, [seq for (seq,) in seqs], values)
    return list(itertools.islice(found, wanted.limit))


def _place(wanted: Filter) -> str:
    """Where the numbers of a filter's rows are: no row of `outbox` is read there."""
    if wanted.ids is not None:
        return "(SELECT seq FROM json_each(:ids) CROSS JOIN outbox ON event_id = value)"
    if wanted.alias is not None:
        return f"({_KNOWN_AS})"
    return PLACES[wanted.state] if wanted.state else _EVERY_PLACE


def _readable(
    connection: sqlite3.Connection, seqs: list[int], values: dict[str, Any]
) -> Iterator[tuple[Any, ...]]:
    for seq in seqs:
        try:
            yield from connection.execute(ONE, {**values, "seq": seq}).fetchall()
        except sqlite3.Error as error:
            if not is_unreadable(error):
                raise


def row_of(row: tuple[Any, ...], now: int) -> Row:
    """The row that `_COLUMNS` gives, at this moment."""
    (seq, event_id, name, owner, user_id, state, attempts, sends, isolated, accepted_at_ms) = row[
        :10
    ]
    meta_text, sent_at, settled_at_ms, due_at_ms, lease_until_ms, reason, detail = row[10:17]
    history, size, prefix = row[17:]
    meta = decode_meta(meta_text)
    return Row(
        id=event_id,
        name=name,
        owner=owner,
        user_id=user_id,
        state=State(state),
        attempts=attempts,
        sends=sends,
        isolated=bool(isolated),
        accepted_at_ms=accepted_at_ms,
        first_sent_at_ms=sent_at,
        settled_at_ms=settled_at_ms,
        due_in_seconds=_seconds_to(due_at_ms, now),
        lease_in_seconds=_seconds_to(lease_until_ms, now),
        reason=reason,
        detail=detail,
        history=_notes(history),
        payload_bytes=size,
        seq=seq,
        inngest_id=InngestIds(prefix).ulid(seq, accepted_at_ms, meta),
        meta=meta,
    )


def _seconds_to(at_ms: int | None, now: int) -> float | None:
    return None if at_ms is None else max(0, at_ms - now) / 1000


def _notes(history: str) -> tuple[dict[str, object], ...]:
    try:
        return tuple(msgspec.json.decode(history, type=list[dict[str, object]]))
    except msgspec.DecodeError:
        return ({"at": 0, "note": "The history can't be read."},)
