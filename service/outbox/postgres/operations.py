"""What a person asks and does, on PostgreSQL: figures, rows, replay, discard, purge, audit.

Each is one statement, and reads take no lock that a writer waits for. Nothing here touches a row
under a claim. An operator's change and its audit row are in one commit, and purge goes in small
pages of their own, so that no transaction is long.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from service.outbox.inngest_id import InngestIds
from service.outbox.model import Filter, Row, State, Stats
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.relay_state import PostgresDelivery

_RATE_SECONDS = 5
_NOW_MS = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

# Where each event is, for people. A branch whose state is not wanted is dropped when planning.
_PLACES = """
SELECT seq, 'pending' AS state, attempts, sends, isolated, first_sent_at_ms,
       NULL::bigint AS settled_at_ms, due_at, NULL::timestamptz AS lease_until,
       NULL AS reason, NULL AS detail
FROM outbox_ready WHERE coalesce(%(state)s::text, 'pending') = 'pending' AND {of_one}
UNION ALL
SELECT u.seq, 'delivering', u.attempts, u.sends, u.isolated,
       coalesce(u.first_sent_at_ms, c.claimed_at_ms), NULL, NULL, c.lease_until, NULL, NULL
FROM outbox_claims c, unnest(c.seqs, c.attempts, c.sends, c.isolated, c.first_sent_at_ms)
    AS u(seq, attempts, sends, isolated, first_sent_at_ms)
WHERE coalesce(%(state)s::text, 'delivering') = 'delivering' AND {of_one}
UNION ALL
SELECT seq, 'delivered', attempts, sends, isolated, first_sent_at_ms, settled_at_ms, NULL, NULL,
       NULL, NULL
FROM outbox_done
WHERE NOT dead AND coalesce(%(state)s::text, 'delivered') = 'delivered' AND {of_one}
UNION ALL
SELECT seq, 'dead', attempts, sends, isolated, first_sent_at_ms, settled_at_ms, NULL, NULL,
       reason, detail
FROM outbox_done WHERE dead AND coalesce(%(state)s::text, 'dead') = 'dead' AND {of_one}
"""

# A condition whose parameter is null is dropped when planning.
_WANTED = f"""
    (%(ids)s::text[] IS NULL OR o.event_id = ANY(%(ids)s))
AND (%(owner)s::text IS NULL OR o.owner = %(owner)s)
AND (%(user_id)s::text IS NULL OR o.user_id = %(user_id)s)
AND (%(name)s::text IS NULL OR o.name = %(name)s)
AND (%(older_than_ms)s::bigint IS NULL
     OR o.accepted_at_ms <= {_NOW_MS} - %(older_than_ms)s::bigint)
AND (%(since_ms)s::bigint IS NULL OR o.accepted_at_ms >= %(since_ms)s)
AND (%(before_seq)s::bigint IS NULL OR o.seq < %(before_seq)s)
"""

_ROWS = f"""
SELECT o.event_id, o.name, o.owner, o.user_id, p.state, p.attempts, p.sends, p.isolated,
       o.accepted_at_ms, p.first_sent_at_ms, p.settled_at_ms,
       CASE p.state WHEN 'pending' THEN
           greatest(0, coalesce(extract(epoch FROM p.due_at - clock_timestamp()), 0))::float8 END,
       CASE p.state WHEN 'delivering' THEN
           greatest(0, extract(epoch FROM p.lease_until - clock_timestamp()))::float8 END,
       p.reason, p.detail,
       ARRAY(SELECT at_ms FROM outbox_notes n WHERE n.seq = o.seq ORDER BY at_ms, note),
       ARRAY(SELECT note FROM outbox_notes n WHERE n.seq = o.seq ORDER BY at_ms, note),
       octet_length(o.payload), o.seq, o.inngest_id, (SELECT inngest_id_prefix FROM outbox_meta)
FROM {{source}}
WHERE {_WANTED} AND (%(reason)s::text IS NULL OR p.reason = %(reason)s)
  AND (NOT %(never_sent)s::boolean
       OR (p.state = 'pending' AND p.sends = 0 AND p.first_sent_at_ms IS NULL))
ORDER BY {{order}} DESC LIMIT %(limit)s
"""

# From the events to their places: the newest of all, or the named ones. OFFSET 0 keeps the planner
# from reading the places from end to end.
ROWS = _ROWS.format(
    source=f"outbox o CROSS JOIN LATERAL ({_PLACES.format(of_one='seq = o.seq')} OFFSET 0) AS p",
    order="o.seq",
)

# From the places of one state to their events.
ROWS_IN_STATE = _ROWS.format(
    source=f"({_PLACES.format(of_one='true')}) AS p CROSS JOIN LATERAL "
    "(SELECT * FROM outbox WHERE outbox.seq = p.seq OFFSET 0) AS o",
    order="p.seq",
)

# Delivered rows are counted as the rest: all done rows less the few dead ones. The rate is that of
# all processes together.
STATS = f"""
WITH held AS (SELECT unnest(seqs) AS seq FROM outbox_claims)
SELECT (SELECT count(*) FROM outbox_ready), (SELECT count(*) FROM held),
       (SELECT count(*) FROM outbox_done), (SELECT count(*) FROM outbox_done WHERE dead),
       (SELECT {_NOW_MS} - min(accepted_at_ms) FROM outbox WHERE seq IN (
            (SELECT min(seq) FROM outbox_ready), (SELECT min(seq) FROM held))),
       (SELECT {_NOW_MS} - min(accepted_at_ms) FROM outbox WHERE seq IN (
            (SELECT min(seq) FROM outbox_ready WHERE due_at IS NULL),
            (SELECT min(seq) FROM outbox_ready WHERE due_at <= clock_timestamp()))),
       pg_total_relation_size('outbox') + pg_total_relation_size('outbox_ready')
       + pg_total_relation_size('outbox_claims') + pg_total_relation_size('outbox_done')
       + pg_total_relation_size('outbox_notes'),
       (SELECT count(*) FROM outbox_done
        WHERE NOT dead AND settled_at_ms > {_NOW_MS} - {_RATE_SECONDS} * 1000)
"""

PAYLOAD = "SELECT payload FROM outbox WHERE event_id = %(id)s"

AUDIT = "SELECT at_ms, actor, action, detail FROM outbox_audit ORDER BY id DESC LIMIT %(limit)s"

# Dead rows become due, with nothing counted against them.
REPLAY = f"""
WITH picked AS (
    SELECT d.seq, o.event_id, o.owner, octet_length(o.payload) AS payload_bytes
    FROM outbox_done d JOIN outbox o ON o.seq = d.seq
    WHERE (d.dead OR %(state)s::text IS NOT DISTINCT FROM 'delivered')
      AND (NOT d.dead OR coalesce(%(state)s::text, 'dead') = 'dead') AND {_WANTED}
      AND (%(reason)s::text IS NULL OR d.reason = %(reason)s)
    ORDER BY d.seq DESC LIMIT %(limit)s FOR UPDATE OF d SKIP LOCKED
), taken AS (
    DELETE FROM outbox_done WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
    RETURNING seq, sends, first_sent_at_ms
), put AS (
    INSERT INTO outbox_ready (seq, first_sent_at_ms, sends, payload_bytes, owner)
    SELECT seq, first_sent_at_ms, sends, payload_bytes, owner FROM taken JOIN picked USING (seq)
), noted AS (
    INSERT INTO outbox_notes (seq, at_ms, note)
    SELECT seq, {_NOW_MS}, 'replayed by ' || %(actor)s::text FROM taken
), audited AS (
    INSERT INTO outbox_audit (at_ms, actor, action, detail)
    SELECT {_NOW_MS}, %(actor)s, 'replay', count(*) || ' rows: ' || coalesce(string_agg(
        event_id, ', '), '') FROM picked
)
SELECT event_id FROM picked ORDER BY seq DESC
"""

# Rows under a claim are nobody's to remove; SKIP LOCKED leaves out what is being claimed.
DISCARD = f"""
WITH waiting AS (
    SELECT r.seq, o.event_id FROM outbox_ready r JOIN outbox o ON o.seq = r.seq
    WHERE coalesce(%(state)s::text, 'pending') = 'pending' AND {_WANTED}
      AND %(reason)s::text IS NULL
      AND (NOT %(never_sent)s::boolean OR (r.sends = 0 AND r.first_sent_at_ms IS NULL))
    ORDER BY r.seq DESC LIMIT %(limit)s FOR UPDATE OF r SKIP LOCKED
), settled AS (
    SELECT d.seq, o.event_id FROM outbox_done d JOIN outbox o ON o.seq = d.seq
    WHERE coalesce(%(state)s::text, CASE WHEN d.dead THEN 'dead' ELSE 'delivered' END)
          = CASE WHEN d.dead THEN 'dead' ELSE 'delivered' END
      AND {_WANTED} AND (%(reason)s::text IS NULL OR d.reason = %(reason)s)
      AND NOT %(never_sent)s::boolean
    ORDER BY d.seq DESC LIMIT %(limit)s FOR UPDATE OF d SKIP LOCKED
), picked AS (
    SELECT * FROM (TABLE waiting UNION ALL TABLE settled) AS found
    ORDER BY seq DESC LIMIT %(limit)s
), not_waiting AS (DELETE FROM outbox_ready WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), not_done AS (DELETE FROM outbox_done WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), no_notes AS (DELETE FROM outbox_notes WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), gone AS (DELETE FROM outbox WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), audited AS (
    INSERT INTO outbox_audit (at_ms, actor, action, detail)
    SELECT {_NOW_MS}, %(actor)s, 'discard', count(*) || ' rows: ' || coalesce(string_agg(
        event_id, ', '), '') FROM picked
)
SELECT event_id FROM picked ORDER BY seq DESC
"""

# One page of delivered rows that were settled long enough ago.
PURGE = f"""
WITH picked AS (
    DELETE FROM outbox_done WHERE seq IN (
        SELECT seq FROM outbox_done
        WHERE NOT dead AND settled_at_ms <= {_NOW_MS} - %(older_than_ms)s::bigint
        ORDER BY settled_at_ms LIMIT %(page)s FOR UPDATE SKIP LOCKED
    ) RETURNING seq
), no_notes AS (DELETE FROM outbox_notes WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), gone AS (DELETE FROM outbox WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
)
SELECT count(*) FROM picked
"""

AUDITED = f"""
INSERT INTO outbox_audit (at_ms, actor, action, detail)
VALUES ({_NOW_MS}, %(actor)s, %(action)s, %(detail)s)
"""

_READ_SECONDS = 10.0
_PURGE_PAGE = 500
_PURGE_PAUSE_SECONDS = 0.02
_STATE = 4
_ACCEPTED_AT_MS = 8
_LAST_NOTES = 20


class PostgresOperations:
    """See the port; `find` is the intake's."""

    def __init__(
        self, pool: PostgresPool, wakeup: PostgresWakeup, delivery: PostgresDelivery
    ) -> None:
        self._pool = pool
        self._wakeup = wakeup
        self._delivery = delivery

    async def find(self, event_id: str) -> Row | None:
        """The row of one event."""
        rows = await self.rows(Filter(ids=(event_id,), limit=1))
        return rows[0] if rows else None

    async def stats(self) -> Stats:
        """See the port."""
        rows = await self._pool.run(STATS, within_seconds=_READ_SECONDS)
        pending, delivering, done, dead, oldest, oldest_due, size, lately = rows[0]
        delivery = await self._delivery.load()
        return Stats(
            pending=pending,
            delivering=delivering,
            delivered=done - dead,
            dead=dead,
            oldest_pending_seconds=_seconds(oldest),
            oldest_due_seconds=_seconds(oldest_due),
            delivery=msgspec.structs.replace(delivery, rate=lately / _RATE_SECONDS),
            database_bytes=size,
            wal_bytes=None,
        )

    async def rows(self, wanted: Filter) -> list[Row]:
        """See the port."""
        given = _values(wanted)
        by_state = given["state"] and wanted.ids is None
        statement = ROWS_IN_STATE if by_state else ROWS
        found = await self._pool.run(statement, given, within_seconds=_READ_SECONDS)
        return [_row(row) for row in found]

    async def payload(self, event_id: str) -> bytes | None:
        """See the port."""
        rows = await self._pool.run(PAYLOAD, {"id": event_id.replace("\x00", "\ufffd")})
        return bytes(rows[0][0]) if rows else None

    async def replay(self, wanted: Filter, *, actor: str) -> list[str]:
        """See the port."""
        given = {**_values(wanted), "actor": actor}
        rows = await self._pool.run(REPLAY, given, within_seconds=_READ_SECONDS, repeatable=False)
        self._wakeup.rows_are_due(old=True)
        return [row[0] for row in rows]

    async def discard(self, wanted: Filter, *, actor: str) -> list[str]:
        """See the port."""
        given = {**_values(wanted), "actor": actor}
        rows = await self._pool.run(DISCARD, given, within_seconds=_READ_SECONDS, repeatable=False)
        return [row[0] for row in rows]

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """See the port."""
        given = {"older_than_ms": int(older_than_seconds * 1000), "page": _PURGE_PAGE}
        gone = 0
        while True:
            rows = await self._pool.run(PURGE, given)
            gone += int(rows[0][0])
            if rows[0][0] < _PURGE_PAGE:
                break
            await asyncio.sleep(_PURGE_PAUSE_SECONDS)
        if gone and actor is not None:
            detail = f"{gone} delivered rows"
            await self._pool.run(AUDITED, {"actor": actor, "action": "purge", "detail": detail})
        return gone

    async def audit(self, limit: int) -> list[dict[str, object]]:
        """See the port."""
        rows = await self._pool.run(AUDIT, {"limit": limit})
        return [dict(zip(("at", "actor", "action", "detail"), row, strict=True)) for row in rows]


def _values(wanted: Filter) -> dict[str, Any]:
    """The parameters of a filter. Only dead rows have a reason; no stored id holds a NUL."""
    older = wanted.older_than_seconds
    state = State.DEAD if wanted.reason is not None and wanted.state is None else wanted.state
    return {
        "ids": None if wanted.ids is None else [i.replace("\x00", "\ufffd") for i in wanted.ids],
        "state": state and state.value,
        "owner": wanted.owner,
        "user_id": wanted.user_id,
        "name": wanted.name,
        "reason": wanted.reason,
        "older_than_ms": None if older is None else int(older * 1000),
        "since_ms": wanted.since_ms,
        "before_seq": wanted.before_seq,
        "never_sent": wanted.never_sent,
        "limit": wanted.limit,
    }


def _row(row: tuple[Any, ...]) -> Row:
    *fields, noted_at, notes, payload_bytes, seq, inngest_id, prefix = row
    history = [{"at": at, "note": note} for at, note in zip(noted_at, notes, strict=True)]
    fields[_STATE] = State(fields[_STATE])
    ulid = InngestIds(prefix).ulid(seq, fields[_ACCEPTED_AT_MS], inngest_id)
    return Row(*[*fields, tuple(history[-_LAST_NOTES:]), payload_bytes, ulid, seq])


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else max(0, milliseconds) / 1000
