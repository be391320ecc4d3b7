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
from service.outbox.outbox import Filter, IdempotencyKey, LaneRecord, Receipt, Row, State, Stats
from service.outbox.sqlite_connection import SqliteConnection
from service.outbox.sqlite_intake import used_receipt

# The one definition of a row's state for people: `delivering` lives in the claims table.
_ROWS = """
SELECT outbox.seq, id, name, user_id,
       CASE state WHEN 1 THEN 'delivered' WHEN 2 THEN 'dead'
            ELSE iif(claims.seq IS NULL, 'pending', 'delivering') END AS state_name,
       attempts, sends, alone, accepted_at, coalesce(first_sent_at, claims.claimed_at) AS sent_at,
       settled_at, due_at, lease_until, reason, detail, history, length(payload) AS bytes
FROM outbox LEFT JOIN claims ON claims.seq = outbox.seq
"""
FIND = f"{_ROWS} WHERE id = :id"

# Each condition is switched off by a NULL parameter.
MATCHING = f"""{_ROWS}
WHERE (:state IS NULL OR state_name = :state)
  AND (:stored IS NULL OR outbox.state = :stored)
  AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
  AND (:user_id IS NULL OR user_id = :user_id)
  AND (:name IS NULL OR name = :name)
  AND (:reason IS NULL OR reason = :reason)
  AND (:accepted_before IS NULL OR accepted_at <= :accepted_before)
ORDER BY outbox.seq DESC LIMIT :limit
"""

# Counting all rows and those that are not delivered, each by its own narrow index, is much
# cheaper than counting delivered rows.
COUNTS = """
SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM outbox WHERE state = 0),
       (SELECT count(*) FROM outbox WHERE state = 2), (SELECT count(*) FROM claims)
"""
OLDEST_PENDING = """
SELECT min(accepted_at) FROM (
    SELECT * FROM (SELECT accepted_at FROM outbox WHERE state = 0 AND alone = 0
                   ORDER BY due_at, seq LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT accepted_at FROM outbox WHERE state = 0 AND alone = 1
                   ORDER BY due_at, seq LIMIT 1))
"""
OLDEST_DUE = OLDEST_PENDING.replace("state = 0 AND", "state = 0 AND due_at <= :now AND")
LANE = (
    "SELECT state, reason, window, failures, reopens_at, since, rate, paused_by, revision FROM lane"
)
PAYLOAD = "SELECT payload FROM outbox WHERE id = :id"
AUDIT = "SELECT at, actor, action, detail FROM audit ORDER BY seq DESC LIMIT :limit"
SCOPE = "SELECT settings FROM scopes WHERE scope = :scope AND scope_id = :scope_id"

_STORED = {State.PENDING: 0, State.DELIVERING: 0, State.DELIVERED: 1, State.DEAD: 2}


class SqliteReading:
    """The reading half of Operations and Scopes over one read-only connection."""

    def __init__(self, connection: SqliteConnection, path: Path) -> None:
        self._connection = connection
        self._path = path

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
        found = await self._connection.run(_fetch, MATCHING, matching(wanted, now))
        return [_row(row, now) for row in found]

    async def stats(self) -> Stats:
        """See Operations.stats."""
        now = wall_now_ms()
        total, undelivered, dead, held, oldest, due, lane = await self._connection.run(_stats, now)
        return Stats(
            pending=undelivered - held,
            delivering=held,
            delivered=total - undelivered - dead,
            dead=dead,
            oldest_pending_seconds=_age(oldest, now),
            oldest_due_seconds=_age(due, now),
            lane=lane_record(lane, now),
            database_bytes=_size(self._path),
            wal_bytes=_size(self._path.with_name(self._path.name + "-wal")),
        )

    async def load_lane(self) -> LaneRecord:
        """See Queue.load_lane."""
        [lane] = await self._connection.run(_fetch, LANE, {})
        return lane_record(lane, wall_now_ms())

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


def matching(wanted: Filter, now_ms: int) -> dict[str, Any]:
    """The parameters of MATCHING for a filter."""
    older = wanted.older_than_seconds
    return {
        "state": wanted.state and wanted.state.value,
        "stored": None if wanted.state is None else _STORED[wanted.state],
        "ids": None if wanted.ids is None else msgspec.json.encode(wanted.ids).decode(),
        "user_id": wanted.user_id,
        "name": wanted.name,
        "reason": wanted.reason,
        "accepted_before": None if older is None else now_ms - int(older * 1000),
        "limit": wanted.limit,
    }


def lane_record(row: tuple[Any, ...], now_ms: int) -> LaneRecord:
    """The lane as LANE gives it."""
    state, reason, window, failures, reopens_at, since, rate, paused_by, revision = row
    return LaneRecord(
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
        [(oldest,)] = connection.execute(OLDEST_PENDING).fetchall()
        [(due,)] = connection.execute(OLDEST_DUE, {"now": now}).fetchall()
        [lane] = connection.execute(LANE).fetchall()
    finally:
        connection.execute("ROLLBACK")
    return (*counts, oldest, due, lane)


def _row(row: tuple[Any, ...], now: int) -> Row:
    (_, event_id, name, user_id, state, attempts, sends, alone, accepted_at, sent_at) = row[:10]
    settled_at, due_at, lease_until, reason, detail, history, payload_bytes = row[10:]
    pending = state == State.PENDING
    return Row(
        id=event_id,
        name=name,
        user_id=user_id,
        state=State(state),
        attempts=attempts,
        sends=sends,
        alone=bool(alone),
        accepted_at_ms=accepted_at,
        first_sent_at_ms=sent_at,
        settled_at_ms=settled_at,
        due_in_seconds=max(0, due_at - now) / 1000 if pending else None,
        lease_in_seconds=None if lease_until is None else max(0, lease_until - now) / 1000,
        reason=reason,
        detail=detail,
        history=tuple(msgspec.json.decode(history)),
        payload_bytes=payload_bytes,
    )


def _age(then_ms: int | None, now_ms: int) -> float | None:
    return None if then_ms is None else max(0, now_ms - then_ms) / 1000


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
