"""The figures of the outbox, its payloads and its audit, for operators.

No figure is counted from a table of events: the cost does not grow with the number of rows.
"""

from __future__ import annotations

import msgspec

from inngest_outbox.outbox.audit import AuditRecord, id_start, records
from inngest_outbox.outbox.figures import SOON_MS, DeadGroup, OwnerShare, Stats
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.outbox.postgres.database.pool import PostgresPool
from inngest_outbox.outbox.postgres.records import PostgresDelivery
from inngest_outbox.outbox.postgres.rows import PostgresRows
from inngest_outbox.outbox.storable import storable


class PostgresInspector:
    """Reads; changes nothing. Every method raises OutboxUnavailableError."""

    def __init__(self, pool: PostgresPool, rows: PostgresRows, delivery: PostgresDelivery) -> None:
        self._pool = pool
        self._arrived_body = rows.arrived_body
        self.rows, self.count = rows.find_all, rows.count
        self.load_delivery = delivery.load

    async def stats(self) -> Stats:
        """As the port says."""
        [row] = await self._pool.ask("STATS", {"soon_ms": SOON_MS})
        delivered, dead, sent, waiting, delivering, oldest, oldest_due, size, rate, *delivery = row
        return Stats(
            pending=max(0, waiting - delivering),
            delivering=delivering,
            delivered=delivered,
            dead=dead,
            oldest_pending_seconds=_seconds(oldest),
            oldest_due_seconds=_seconds(oldest_due),
            delivery=msgspec.structs.replace(DeliveryRecord(*delivery), rate=rate),
            database_bytes=size,
            wal_bytes=None,
            sent=sent,
        )

    async def payload(self, event_id: str) -> bytes | None:
        """As the port says; of an event in the inbox, what it will be made from."""
        rows = await self._pool.ask("PAYLOAD", {"id": storable(event_id)})
        return bytes(rows[0][0]) if rows else await self._arrived_body(event_id)

    async def owners(self, limit: int) -> list[OwnerShare]:
        """As the port says."""
        rows = await self._pool.ask("OWNERS", {"limit": limit})
        return [OwnerShare(*row) for row in rows]

    async def dead_groups(self, limit: int) -> list[DeadGroup]:
        """As the port says."""
        return [DeadGroup(*row) for row in await self._pool.ask("DEAD_GROUPS", {"limit": limit})]

    async def audit(self, limit: int, *, event: str | None = None) -> list[AuditRecord]:
        """As the port says."""
        given = {"limit": limit, "event": event and id_start(event)}
        return records([tuple(row) for row in await self._pool.ask("AUDIT", given)])


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else max(0, milliseconds) / 1000
