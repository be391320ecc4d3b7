"""Looking into an SQLite outbox, live or a copy, without ever blocking its writer.

Needs a read-only connection and nothing else, so that the `outbox` script can use it beside a
running service. Every statement is one short read transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec

from service.outbox.clock import wall_now_ms
from service.outbox.inngest_id import InngestIds
from service.outbox.model import DeliveryRecord, Filter, IdempotencyKey, Receipt, Row, State, Stats
from service.outbox.sqlite.connection import SqliteConnection
from service.outbox.sqlite.intake import used_receipt
from service.outbox.sqlite.wal import SqliteLog

P = ParamSpec("P")
T = TypeVar("T")

_COLUMNS = """
SELECT seq, event_id, name, owner, user_id, state, attempts, sends, isolated, accepted_at_ms,
       inngest_id, first_sent_at_ms, settled_at_ms, due_at_ms, lease_until_ms, reason, detail,
       coalesce(history, '[]'), payload_bytes, (SELECT inngest_id_prefix FROM outbox_meta)
"""

_PAST_ALL = 2**63 - 1

# Where the rows of a state are: reading a state reads no row of another.
_PLACES = {
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
  AND seq < :before
  AND (NOT :never_sent OR (state = 'pending' AND sends = 0 AND first_sent_at_ms IS NULL))
ORDER BY seq DESC LIMIT :limit
"""

FIND = f"{_COLUMNS} FROM outbox_rows WHERE event_id = :id"


def _matching(state: State | None, *, by_ids: bool) -> str:
    """The statement that reads no row but those of the ids, or else of the state."""
    source, in_state = "outbox_rows", "true"
    if by_ids:
        source = "json_each(:ids) CROSS JOIN outbox_rows ON event_id = value"
        in_state = f"state = '{state}'" if state else "true"
    elif state:
        source = f"{_PLACES[state]} CROSS JOIN outbox_rows USING (seq)"
    return f"{_COLUMNS} FROM {source} {_MATCHING.format(in_state=in_state)}"


MATCHING = {
    (state, by_ids): _matching(state, by_ids=by_ids)
    for state in (None, *State)
    for by_ids in (False, True)
}

COUNTS = """
SELECT (SELECT count(*) FROM outbox_ready), (SELECT count(*) FROM outbox_claims),
       (SELECT count(*) FROM outbox_sent), (SELECT count(*) FROM outbox_done),
       (SELECT count(*) FROM outbox_done WHERE dead = 1)
"""

# Rows are numbered in the order of their acceptance.
OLDEST_PENDING = """
SELECT accepted_at_ms FROM outbox WHERE seq = (
    SELECT min(seq) FROM (SELECT min(seq) AS seq FROM outbox_ready
                          UNION ALL SELECT min(seq) FROM outbox_claims))
"""
OLDEST_DUE = """
SELECT accepted_at_ms FROM outbox WHERE seq = (
    SELECT min(seq) FROM (SELECT min(seq) AS seq FROM outbox_ready WHERE due_at_ms <= :now
                          UNION ALL SELECT min(seq) FROM outbox_claims))
"""
DELIVERY = """
SELECT state, reason, batch_window, failures, reopens_at_ms, since_ms, rate, paused_by, revision
FROM outbox_delivery
"""
PAYLOAD = "SELECT payload FROM outbox WHERE event_id = :id"
AUDIT = "SELECT at_ms, actor, action, detail FROM outbox_audit ORDER BY id DESC LIMIT :limit"
SCOPE = "SELECT settings FROM outbox_settings WHERE scope = :scope AND scope_id = :scope_id"


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

    async def receipt(self, owner: str, key: IdempotencyKey) -> Receipt | None:
        """The receipt of an earlier use of `key`, None if unused.

        Raises IdempotencyKeyReusedError.
        """
        return await self._connection.run(used_receipt, owner, key)

    async def rows(self, wanted: Filter) -> list[Row]:
        """See Operations.rows."""
        now = wall_now_ms()
        found = await self._connection.run(matching, wanted, now)
        return [_row(row, now) for row in found]

    async def stats(self) -> Stats:
        """See Operations.stats."""
        now = wall_now_ms()
        found = await self._connection.run(_stats, now)
        ready, held, sent, done, dead, oldest, due, delivery = found
        return Stats(
            pending=ready,
            delivering=held,
            sent=sent,
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

    async def run(
        self,
        read: Callable[Concatenate[sqlite3.Connection, P], T],
        *values: P.args,
        **named: P.kwargs,
    ) -> T:
        """What `read` gives, called with the connection and `values`."""
        return await self._connection.run(read, *values, **named)

    async def audit(self, limit: int) -> list[dict[str, object]]:
        """See Operations.audit."""
        rows = await self._connection.run(_fetch, AUDIT, {"limit": limit})
        return [dict(zip(("at", "actor", "action", "detail"), row, strict=True)) for row in rows]

    async def load_scope(self, scope: str, scope_id: str) -> dict[str, object] | None:
        """See Scopes.load_scope."""
        rows = await self._connection.run(_fetch, SCOPE, {"scope": scope, "scope_id": scope_id})
        return msgspec.json.decode(rows[0][0], type=dict[str, object]) if rows else None


def matching(connection: sqlite3.Connection, wanted: Filter, now_ms: int) -> list[tuple[Any, ...]]:
    """The rows that match, newest first: the columns of `_COLUMNS`."""
    older = wanted.older_than_seconds
    values = {
        "ids": None
        if wanted.ids is None
        else msgspec.json.encode(sorted(set(wanted.ids))).decode(),
        "owner": wanted.owner,
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
    (seq, event_id, name, owner, user_id, state, attempts, sends, isolated, accepted_at_ms) = row[
        :10
    ]
    inngest_id, sent_at, settled_at_ms, due_at_ms, lease_until_ms, reason, detail = row[10:17]
    history, size, prefix = row[17:]
    pending = state == State.PENDING
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
        due_in_seconds=max(0, due_at_ms - now) / 1000 if pending else None,
        lease_in_seconds=None if lease_until_ms is None else max(0, lease_until_ms - now) / 1000,
        reason=reason,
        detail=detail,
        history=tuple(msgspec.json.decode(history)),
        payload_bytes=size,
        seq=seq,
        inngest_id=InngestIds(prefix).ulid(seq, accepted_at_ms, inngest_id),
    )


def _age(accepted: list[tuple[int]], now_ms: int) -> float | None:
    return max(0, now_ms - accepted[0][0]) / 1000 if accepted else None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
