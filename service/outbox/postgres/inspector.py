"""What operators ask of the outbox on PostgreSQL.

No figure is counted from a table: the cost does not grow with the number of rows.
"""

from __future__ import annotations

import msgspec

from service.outbox.audit import AuditRecord, id_start, records
from service.outbox.model import DeliveryRecord, Filter, Row
from service.outbox.owner_share import OwnerShare
from service.outbox.postgres.counts import READ_TOTALS
from service.outbox.postgres.delivery import DELIVERY_FIELDS, PostgresDelivery
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.row_reader import count_rows, find_rows
from service.outbox.postgres.rows import NOW_MS
from service.outbox.stats import Stats

RATE_SECONDS = 5

# One statement, so that all figures are of one moment. The counts have pending and delivering rows
# together; claimed rows are few and are counted here. The oldest delayed row is searched among the
# first by due time.
STATS = f"""
WITH mark AS MATERIALIZED (TABLE outbox_mark), held AS MATERIALIZED (
    SELECT unnest(seqs) AS seq FROM outbox_claims
    WHERE lease_until >= (SELECT lease_from FROM mark)
), fresh AS MATERIALIZED (
    SELECT seq FROM outbox_ready WHERE due_at IS NULL AND seq >= (SELECT ready_from FROM mark)
    ORDER BY seq LIMIT 1
), delayed AS MATERIALIZED (
    (SELECT seq, due_at FROM outbox_ready WHERE due_at IS NOT NULL AND NOT isolated
         AND due_at >= (SELECT due_from FROM mark) ORDER BY due_at LIMIT 1000)
    UNION ALL
    (SELECT seq, due_at FROM outbox_ready WHERE due_at IS NOT NULL AND isolated
         AND due_at >= (SELECT isolated_from FROM mark) ORDER BY due_at LIMIT 1000)
), totals AS MATERIALIZED ({READ_TOTALS}
)
SELECT delivered, dead, sent, lately,
       (SELECT pending + (SELECT coalesce(sum(rows), 0)::bigint
                          FROM outbox_changes c, unnest(c.pending) AS rows
                          WHERE no > changes_folded)
        FROM outbox_meta),
       (SELECT count(*) FROM held),
       (SELECT {NOW_MS} - min(accepted_at_ms) FROM outbox WHERE seq IN (
            (SELECT seq FROM fresh), (SELECT min(seq) FROM delayed), (SELECT min(seq) FROM held))),
       (SELECT {NOW_MS} - min(accepted_at_ms) FROM outbox WHERE seq IN (
            (SELECT seq FROM fresh),
            (SELECT min(seq) FROM delayed WHERE due_at <= statement_timestamp()))),
       (SELECT sum(pg_total_relation_size(coalesce(relid, name::regclass)))::bigint
        FROM unnest(ARRAY[
            'outbox', 'outbox_ready', 'outbox_claims', 'outbox_sent', 'outbox_done',
            'outbox_notes', 'outbox_changes', 'outbox_carried', 'outbox_counts',
            'outbox_marks']) AS name
        LEFT JOIN LATERAL pg_partition_tree(name::regclass) ON true),
       {DELIVERY_FIELDS}
FROM totals CROSS JOIN outbox_delivery
"""

PAYLOAD = "SELECT payload FROM outbox WHERE event_id = %(id)s"

OWNERS = """
SELECT owner, sum(stored)::bigint, sum(bytes)::bigint FROM (
    SELECT owner, stored, stored_bytes AS bytes FROM outbox_by_owner
    UNION ALL
    SELECT u.owner, u.stored, u.bytes
    FROM outbox_meta, outbox_changes AS c,
         unnest(owners, c.stored, c.stored_bytes) AS u(owner, stored, bytes)
    WHERE no > changes_folded
) AS counted
GROUP BY owner HAVING sum(stored) > 0 ORDER BY 3 DESC, owner LIMIT %(limit)s
"""

# The newest acts, then all of their rows.
AUDIT = """
WITH newest AS (
    SELECT act, max(id) AS last FROM outbox_audit
    WHERE %(event)s::text IS NULL OR strpos(ids, %(event)s) > 0
    GROUP BY act ORDER BY last DESC LIMIT %(limit)s
)
SELECT act, at_ms, actor, action, detail, ids
FROM newest JOIN outbox_audit USING (act) ORDER BY last DESC, id
"""


class PostgresInspector:
    """Reads; changes nothing."""

    def __init__(self, pool: PostgresPool, delivery: PostgresDelivery) -> None:
        self._pool = pool
        self._delivery = delivery

    async def stats(self) -> Stats:
        """The figures. Raises OutboxUnavailableError."""
        [row] = await self._pool.ask(STATS, {"seconds": RATE_SECONDS})
        delivered, dead, sent, lately, waiting, delivering, oldest, oldest_due, size = row[:9]
        delivery = DeliveryRecord(*row[9:])
        return Stats(
            pending=max(0, waiting - delivering),
            delivering=delivering,
            delivered=delivered,
            dead=dead,
            oldest_pending_seconds=_seconds(oldest),
            oldest_due_seconds=_seconds(oldest_due),
            delivery=msgspec.structs.replace(delivery, rate=lately / RATE_SECONDS),
            database_bytes=size,
            wal_bytes=None,
            sent=sent,
        )

    async def rows(self, wanted: Filter) -> list[Row]:
        """The matching rows, newest first. Raises OutboxUnavailableError."""
        return await find_rows(self._pool, wanted)

    async def count(self, wanted: Filter) -> int:
        """How many rows match, at most `wanted.limit`. Raises OutboxUnavailableError."""
        return await count_rows(self._pool, wanted)

    async def payload(self, event_id: str) -> bytes | None:
        """The stored bytes of one event, None when there is no such event."""
        rows = await self._pool.ask(PAYLOAD, {"id": event_id.replace("\x00", "\ufffd")})
        return bytes(rows[0][0]) if rows else None

    async def load_delivery(self) -> DeliveryRecord:
        """The delivery record as last saved."""
        return await self._delivery.load()

    async def owners(self, limit: int) -> list[OwnerShare]:
        """Who holds the most bytes, the largest first."""
        rows = await self._pool.ask(OWNERS, {"limit": limit})
        return [OwnerShare(*row) for row in rows]

    async def audit(self, limit: int, *, event: str | None = None) -> list[AuditRecord]:
        """The latest commands, newest first; only those that changed `event`, if given."""
        given = {"limit": limit, "event": event and id_start(event)}
        return records([tuple(row) for row in await self._pool.ask(AUDIT, given)])


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else max(0, milliseconds) / 1000
