"""The samples of an outbox on PostgreSQL: a row for each minute of the last days.

Every process offers its sample of a minute; the first one counts.
"""

from __future__ import annotations

import msgspec

from service.outbox.postgres.pool import PostgresPool
from service.outbox.sample import KEPT_MS, Sample

ADD_SAMPLE = """
WITH dropped AS (DELETE FROM outbox_samples WHERE at_ms < %(oldest_ms)s)
INSERT INTO outbox_samples (at_ms, waiting, dead, accepted_rate, delivered_rate, state, reason)
VALUES (%(at_ms)s, %(waiting)s, %(dead)s, %(accepted_rate)s, %(delivered_rate)s, %(state)s,
        %(reason)s)
ON CONFLICT (at_ms) DO NOTHING
"""
SAMPLES = """
SELECT at_ms, waiting, dead, accepted_rate, delivered_rate, state, reason FROM outbox_samples
WHERE at_ms >= %(from_ms)s AND at_ms <= %(until_ms)s ORDER BY at_ms
"""


class PostgresSamples:
    """Writes and reads through the pool."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def add(self, sample: Sample) -> None:
        """Keep a sample unless its minute has one, and drop those of more than 7 days before."""
        given = {**msgspec.structs.asdict(sample), "oldest_ms": sample.at_ms - KEPT_MS}
        await self._pool.run(ADD_SAMPLE, given)

    async def between(self, from_ms: int, until_ms: int) -> list[Sample]:
        """The samples of minutes that begin within these moments, oldest first."""
        rows = await self._pool.ask(SAMPLES, {"from_ms": from_ms, "until_ms": until_ms})
        return [Sample(*row) for row in rows]
