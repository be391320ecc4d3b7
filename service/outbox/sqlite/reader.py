"""Looking into an SQLite outbox, live or a copy, without ever blocking its writer.

Needs a read-only connection and nothing else, so that the `outbox` script can use it beside a
running service. Every statement is one short read transaction.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from service.outbox.clock import wall_now_ms
from service.outbox.model import DeliveryRecord, Filter, IdempotencyKey, Receipt, Row, State, Stats
from service.outbox.sqlite.connection import SqliteConnection
from service.outbox.sqlite.intake import used_receipt
from service.outbox.sqlite.wal import SqliteLog

# The one definition of a row's state for people, over the places where its `seq` may be.
_ROWS = """
SELECT seq, outbox.id, name, user_id,
       CASE WHEN claims.seq IS NOT NULL THEN 'delivering' WHEN done.seq IS NULL THEN 'pending'
            ELSE iif(dead, 'dead', 'delivered') END,
       coalesce(ready.attempts, claims.attempts, done.attempts),
       coalesce(ready.sends, claims.sends, done.sends),
       coalesce(ready.isolated, claims.isolated, done.isolated), accepted_at,
       coalesce(ready.first_sent_at, claims.first_sent_at, done.first_sent_at, claimed_at),
       settled_at, due_at, lease_until, reason, detail,
       coalesce(ready.history, claims.history, done.history, '[]'), length(payload)
FROM {source} {places}
"""
_PLACES = {name: f"LEFT JOIN {name} USING (seq)" for name in ("ready", "claims", "done")}

_PAST_ALL = 2**63 - 1

# Where the rows of a state are.
_STATES = {
    State.PENDING: ("ready", "ready.seq IS NOT NULL"),
    State.DELIVERING: ("claims", "claims.seq IS NOT NULL"),
    State.SENT: ("claims", "false"),
    State.DELIVERED: ("done", "dead = 0"),
    State.DEAD: ("done", "dead = 1"),
}

# Each condition but the first is switched off by a NULL parameter.
_MATCHING = """
WHERE {in_state}
  AND (:user_id IS NULL OR user_id = :user_id)
  AND (:name IS NULL OR name = :name)
  AND (:reason IS NULL OR reason = :reason)
  AND (:accepted_before IS NULL OR accepted_at <= :accepted_before)
  AND (:since IS NULL OR accepted_at >= :since)
  AND outbox.seq < :before
  AND (NOT :never_sent OR (ready.sends = 0 AND ready.first_sent_at IS NULL))
ORDER BY seq DESC LIMIT :limit
"""


_OUTBOX = _ROWS.format(source="outbox", places=" ".join(_PLACES.values()))
FIND = f"{_OUTBOX} WHERE outbox.id = :id"


def _matching(state: State | None, *, by_ids: bool) -> str:
    """The statement that reads no row but those of the ids, or else of the state."""
    place, in_state = _STATES[state] if state else (None, "true")
    source = "outbox"
    if by_ids:
        place, source = None, "json_each(:ids) CROSS JOIN outbox ON outbox.id = value"
    elif place:
        source = f"{place} CROSS JOIN outbox USING (seq)"
    others = " ".join(join for name, join in _PLACES.items() if name != place)
    return _ROWS.format(source=source, places=others) + _MATCHING.format(in_state=in_state)


MATCHING = {
    (state, by_ids): _matching(state, by_ids=by_ids)
    for state in (None, *State)
    for by_ids in (False, True)
}

COUNTS = """
SELECT (SELECT count(*) FROM ready), (SELECT count(*) FROM claims), (SELECT count(*) FROM done),
       (SELECT count(*) FROM done WHERE dead = 1)
"""

# Rows are numbered in the order of their acceptance.
OLDEST_PENDING = """
SELECT accepted_at FROM outbox WHERE seq = (
    SELECT min(seq) FROM (SELECT min(seq) AS seq FROM ready
                          UNION ALL SELECT min(seq) FROM claims))
"""
OLDEST_DUE = """
SELECT accepted_at FROM outbox WHERE seq = (
    SELECT min(seq) FROM (SELECT min(seq) AS seq FROM ready WHERE due_at <= :now
                          UNION ALL SELECT min(seq) FROM claims))
"""
DELIVERY = """
SELECT state, reason, window, failures, reopens_at, since, rate, paused_by, revision
FROM outbox_delivery
"""
PAYLOAD = "SELECT payload FROM outbox WHERE id = :id"
AUDIT = "SELECT at, actor, action, detail FROM audit ORDER BY seq DESC LIMIT :limit"
SCOPE = "SELECT settings FROM scopes WHERE scope = :scope AND scope_id = :scope_id"


class SqliteReading:
    """The reading half of Operations and Scopes over one read-only connection."""

    def __init__(self, connection: SqliteConnection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._log = SqliteLog(path)

    async def find(self, event_id: str) -> Row | None:
        """See Intake.find."""
        rows = await self._connection.run(_fetch, FIND, {"id": event_id})
        return _row(rows[0], wall_now_ms()) if rows else None

    async def receipt(self, user_id: str, key: IdempotencyKey) -> Receipt | None:
        """The receipt of an earlier use of `key`, None if unused.

        Raises IdempotencyKeyReusedError.
        """
        return await self._connection.run(used_receipt, user_id, key)

    async def rows(self, wanted: Filter) -> list[Row]:
        """See Operations.rows."""
        now = wall_now_ms()
        found = await self._connection.run(matching, wanted, now)
        return [_row(row, now) for row in found]

    async def stats(self) -> Stats:
        """See Operations.stats."""
        now = wall_now_ms()
        ready, held, done, dead, oldest, due, delivery = await self._connection.run(_stats, now)
        return Stats(
            pending=ready,
            delivering=held,
            delivered=done - dead,
            dead=dead,
            oldest_pending_seconds=_age(oldest, now),
            oldest_due_seconds=_age(due, now),
            delivery=delivery_record(delivery, now),
            database_bytes=_size(self._path),
            wal_bytes=self._log.size,
        )

    async def load_delivery(self) -> DeliveryRecord:
        """See Queue.load_delivery."""
        [delivery] = await self._connection.run(_fetch, DELIVERY, {})
        return delivery_record(delivery, wall_now_ms())

    async def payload(self, event_id: str) -> bytes | None:
        """See Operations.payload."""
        rows = await self._connection.run(_fetch, PAYLOAD, {"id": event_id})
        return bytes(rows[0][0]) if rows else None

    async def audit(self, limit: int) -> list[dict[str, object]]:
        """See Operations.audit."""
        rows = await self._connection.run(_fetch, AUDIT, {"limit": limit})
        return [dict(zip(("at", "actor", "action", "detail"), row, strict=True)) for row in rows]

    async def load_scope(self, scope: str, scope_id: str) -> dict[str, object] | None:
        """See Scopes.load_scope."""
        rows = await self._connection.run(_fetch, SCOPE, {"scope": scope, "scope_id": scope_id})
        return msgspec.json.decode(rows[0][0], type=dict[str, object]) if rows else None


def matching(connection: sqlite3.Connection, wanted: Filter, now_ms: int) -> list[tuple[Any, ...]]:
    """The rows that match, newest first: seq, id, name, user, state, and what else `_ROWS` has."""
    older = wanted.older_than_seconds
    values = {
        "ids": None
        if wanted.ids is None
        else msgspec.json.encode(sorted(set(wanted.ids))).decode(),
        "user_id": wanted.user_id,
        "name": wanted.name,
        "reason": wanted.reason,
        "accepted_before": None if older is None else now_ms - int(older * 1000),
        "since": wanted.since_ms,
        "before": _PAST_ALL if wanted.before_seq is None else wanted.before_seq,
        "never_sent": wanted.never_sent,
        "limit": wanted.limit,
    }
    return _fetch(connection, MATCHING[wanted.state, wanted.ids is not None], values)


def delivery_record(row: tuple[Any, ...], now_ms: int) -> DeliveryRecord:
    """The delivery as DELIVERY gives it."""
    state, reason, window, failures, reopens_at, since, rate, paused_by, revision = row
    return DeliveryRecord(
        state=state,
        reason=reason,
        window=window,
        failures=failures,
        reopens_in_seconds=max(0, reopens_at - now_ms) / 1000,
        since_ms=since,
        rate=rate,
        paused_by=paused_by,
        revision=revision,
    )


def _fetch(
    connection: sqlite3.Connection, statement: str, values: dict[str, Any]
) -> list[tuple[Any, ...]]:
    return connection.execute(statement, values).fetchall()


def _stats(connection: sqlite3.Connection, now: int) -> tuple[Any, ...]:
    connection.execute("BEGIN")  # one snapshot, so that the figures agree with each other
    try:
        [counts] = connection.execute(COUNTS).fetchall()
        oldest = connection.execute(OLDEST_PENDING).fetchall()
        due = connection.execute(OLDEST_DUE, {"now": now}).fetchall()
        [delivery] = connection.execute(DELIVERY).fetchall()
    finally:
        connection.execute("ROLLBACK")
    return (*counts, oldest, due, delivery)


def _row(row: tuple[Any, ...], now: int) -> Row:
    (seq, event_id, name, user_id, state, attempts, sends, isolated, accepted_at, sent_at) = row[
        :10
    ]
    settled_at, due_at, lease_until, reason, detail, history, payload_bytes = row[10:]
    pending = state == State.PENDING
    return Row(
        id=event_id,
        name=name,
        user_id=user_id,
        state=State(state),
        attempts=attempts,
        sends=sends,
        isolated=bool(isolated),
        accepted_at_ms=accepted_at,
        first_sent_at_ms=sent_at,
        settled_at_ms=settled_at,
        due_in_seconds=max(0, due_at - now) / 1000 if pending else None,
        lease_in_seconds=None if lease_until is None else max(0, lease_until - now) / 1000,
        reason=reason,
        detail=detail,
        history=tuple(msgspec.json.decode(history)),
        payload_bytes=payload_bytes,
        seq=seq,
    )


def _age(accepted: list[tuple[int]], now_ms: int) -> float | None:
    return max(0, now_ms - accepted[0][0]) / 1000 if accepted else None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
