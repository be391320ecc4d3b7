"""Looking into an SQLite outbox, live or a copy, without ever blocking its writer.

Needs a read-only connection and nothing else, so that the `outbox` script can use it beside a
running service. Every statement is one short read transaction.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from service.errors import OutboxUnavailableError
from service.outbox.audit import AuditRecord, id_start, records
from service.outbox.clock import wall_now_ms
from service.outbox.model import DeliveryRecord, Filter, Row
from service.outbox.owner_share import OwnerShare
from service.outbox.sqlite.faults import is_damage
from service.outbox.sqlite.reader import Reads
from service.outbox.sqlite.rows import count, matching, readable, row_of
from service.outbox.sqlite.wal import WriteAheadLog
from service.outbox.stats import Stats

COUNTS = """
SELECT (SELECT count(*) FROM outbox_ready), (SELECT count(*) FROM outbox_claims),
       (SELECT count(*) FROM outbox_sent), (SELECT count(*) FROM outbox_done),
       (SELECT count(*) FROM outbox_done WHERE dead = 1)
"""

# Rows are numbered in the order of their acceptance. Where the clock was ahead, the first rows may
# lie in the future: they do not count.
_OLDEST = """
SELECT coalesce(min(iif(accepted_at_ms <= :now, accepted_at_ms, NULL)), min(accepted_at_ms)) FROM (
    SELECT * FROM (SELECT seq FROM outbox_ready WHERE {due} ORDER BY seq LIMIT 100)
    UNION ALL
    SELECT * FROM (SELECT seq FROM outbox_ready WHERE {due} ORDER BY seq DESC LIMIT 100)
    UNION ALL SELECT * FROM (SELECT seq FROM outbox_claims ORDER BY seq LIMIT 100))
CROSS JOIN outbox USING (seq)
"""
OLDEST_PENDING = _OLDEST.format(due="true")
OLDEST_DUE = _OLDEST.format(due="due_at_ms <= :now")
DELIVERY = """
SELECT state, reason, batch_window, failures, reopens_at_ms, since_ms, rate, paused_by, revision,
       destination, confirmation, pause_reason
FROM outbox_delivery
"""
PAYLOAD = "SELECT payload FROM outbox WHERE event_id = :id"
OWNERS = """
SELECT owner, count(*), sum(length(payload)) FROM outbox
GROUP BY owner ORDER BY 3 DESC, owner LIMIT :limit
"""
# The newest acts, then all of their rows.
AUDIT = """
WITH newest AS (
    SELECT act, max(id) AS last FROM outbox_audit
    WHERE :event IS NULL OR instr(ids, :event) > 0
    GROUP BY act ORDER BY last DESC LIMIT :limit
)
SELECT act, at_ms, actor, action, detail, ids
FROM newest CROSS JOIN outbox_audit USING (act) ORDER BY last DESC, id
"""


class SqliteInspector:
    """The Inspector of the outbox at `path`, over a connection that reads."""

    def __init__(self, reads: Reads, path: Path) -> None:
        self._reads = reads
        self._path = path
        self._log = WriteAheadLog(path)

    async def rows(self, wanted: Filter) -> list[Row]:
        """The matching rows, newest first."""
        now = wall_now_ms()
        try:
            found = await self._reads.run(matching, wanted, now)
        except OutboxUnavailableError as error:
            if not is_damage(error):
                raise
            found = await self._reads.run(readable, wanted, now)
        return [row_of(row, now) for row in found]

    async def count(self, wanted: Filter) -> int:
        """How many rows match, at most `wanted.limit`."""
        return await self._reads.run(count, wanted, wall_now_ms())

    async def stats(self) -> Stats:
        """The figures."""
        now = wall_now_ms()
        found = await self._reads.run(_stats, now)
        ready, claimed, sent, done, dead, oldest, due, delivery = found
        return Stats(
            pending=ready,
            delivering=claimed,
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
        """The delivery record as last saved."""
        [delivery] = await self._reads.run(_fetch, DELIVERY, {})
        return delivery_record(delivery, wall_now_ms())

    async def payload(self, event_id: str) -> bytes | None:
        """The stored bytes of one event, None when there is no such event."""
        rows = await self._reads.run(_fetch, PAYLOAD, {"id": event_id})
        return bytes(rows[0][0]) if rows else None

    async def owners(self, limit: int) -> list[OwnerShare]:
        """Who holds the most bytes, the largest first. Reads every row."""
        rows = await self._reads.run(_fetch, OWNERS, {"limit": limit})
        return [OwnerShare(*row) for row in rows]

    async def audit(self, limit: int, *, event: str | None = None) -> list[AuditRecord]:
        """The latest commands, newest first; only those that changed `event`, if given."""
        values = {"limit": limit, "event": event and id_start(event)}
        return records(await self._reads.run(_fetch, AUDIT, values))


def delivery_record(row: tuple[Any, ...], now_ms: int) -> DeliveryRecord:
    """The delivery record as DELIVERY gives it.

    When the clock was set back after the save, the wait can't be known and is over.
    """
    state, reason, window, failures, reopens_at, since, rate, paused_by, revision = row[:9]
    destination, confirmation, pause_reason = row[9:]
    if now_ms < since:
        reopens_at = 0
    return DeliveryRecord(
        state=state,
        reason=reason,
        window=window,
        failures=failures,
        reopens_in_seconds=max(0, reopens_at - now_ms) / 1000,
        since_ms=since,
        rate=rate,
        paused_by=paused_by,
        pause_reason=pause_reason,
        revision=revision,
        destination=destination,
        confirmation=confirmation,
    )


def _fetch(
    connection: sqlite3.Connection, statement: str, values: dict[str, Any]
) -> list[tuple[Any, ...]]:
    return connection.execute(statement, values).fetchall()


def _stats(connection: sqlite3.Connection, now: int) -> tuple[Any, ...]:
    connection.execute("BEGIN")  # one snapshot, so that the figures agree with each other
    try:
        [counts] = connection.execute(COUNTS).fetchall()
        oldest = connection.execute(OLDEST_PENDING, {"now": now}).fetchall()
        due = connection.execute(OLDEST_DUE, {"now": now}).fetchall()
        [delivery] = connection.execute(DELIVERY).fetchall()
    finally:
        connection.execute("ROLLBACK")
    return (*counts, oldest, due, delivery)


def _age(accepted: list[tuple[int | None]], now_ms: int) -> float | None:
    [(at_ms,)] = accepted
    return None if at_ms is None else max(0, now_ms - at_ms) / 1000


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
