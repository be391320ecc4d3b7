"""The samples of an SQLite outbox: a row for each minute of the last days."""

from __future__ import annotations

import sqlite3

import msgspec

from service.outbox.sample import KEPT_MS, Sample
from service.outbox.sqlite.jobs import JobRunner
from service.outbox.sqlite.reader import Reads

ADD_SAMPLE = """
INSERT INTO outbox_samples (at_ms, waiting, dead, accepted_rate, delivered_rate, state, reason)
VALUES (:at_ms, :waiting, :dead, :accepted_rate, :delivered_rate, :state, :reason)
ON CONFLICT (at_ms) DO NOTHING
"""
DROP_SAMPLES = "DELETE FROM outbox_samples WHERE at_ms < :oldest_ms"
SAMPLES = """
SELECT at_ms, waiting, dead, accepted_rate, delivered_rate, state, reason FROM outbox_samples
WHERE at_ms >= :from_ms AND at_ms <= :until_ms ORDER BY at_ms
"""


class SqliteSamples:
    """Writes through `jobs`, reads through a connection that reads."""

    def __init__(self, reads: Reads, jobs: JobRunner) -> None:
        self._reads = reads
        self._jobs = jobs

    async def add(self, sample: Sample) -> None:
        """Keep a sample unless its minute has one, and drop those of more than 7 days before."""

        def run(connection: sqlite3.Connection) -> bool:
            connection.execute(ADD_SAMPLE, msgspec.structs.asdict(sample))
            connection.execute(DROP_SAMPLES, {"oldest_ms": sample.at_ms - KEPT_MS})
            return True

        await self._jobs.run(run)

    async def between(self, from_ms: int, until_ms: int) -> list[Sample]:
        """The samples of minutes that begin within these moments, oldest first."""
        return await self._reads.run(_between, from_ms, until_ms)


def _between(connection: sqlite3.Connection, from_ms: int, until_ms: int) -> list[Sample]:
    rows = connection.execute(SAMPLES, {"from_ms": from_ms, "until_ms": until_ms}).fetchall()
    return [Sample(*row) for row in rows]
