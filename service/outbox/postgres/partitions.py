"""Partitions of the events by ranges of seq: what the retention removes is dropped, not deleted.

One partition is open and takes the new rows. It is closed after a share of the retention. A closed
one is dropped when nearly all of its rows are delivered and old; the few others move to the kept
partition. The functions of the migration do it, one process at a time. They wait for a table for at
most 0.2 s, because posts wait behind them; the next purge tries again.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.outbox.postgres.pool import PostgresPool

FIGURES = """
SELECT p.number::bigint << 36, p.last_seq, s.last_value - p.first_seq + 1,
       extract(epoch FROM statement_timestamp() - coalesce(closed_at, opened_at))::float8
FROM outbox_partitions AS p, outbox_seq_seq AS s
WHERE opened_at IS NOT NULL AND counted_to IS NULL ORDER BY p.number
"""
MAKE = "SELECT outbox_make_partition()"
CLOSE = "SELECT outbox_close_partition()"
DETACH = """
SELECT outbox_detach_partition(%(older_than_ms)s::bigint, %(most_staying)s::integer,
                               %(most_staying_bytes)s::bigint)
"""
DROP = "SELECT outbox_drop_detached(%(page)s::integer)"


@dataclass(frozen=True, slots=True)
class PartitionPolicy:
    """When a partition is closed, and which may be dropped.

    The open one is closed after `share` of the retention, which is at least `least_seconds`, if it
    has `least_rows`. At most `most_staying` rows of `most_staying_bytes` move when one is dropped.
    Of `most` partitions none is closed: statements cost more with each.
    """

    share: float = 0.25
    least_seconds: float = 3600.0
    least_rows: int = 100_000
    most: int = 10
    most_staying: int = 10_000
    most_staying_bytes: int = 32 * 2**20
    page: int = 50_000


@dataclass(frozen=True, slots=True)
class _Partition:
    from_seq: int
    last_seq: int | None  # None while it is open
    drawn: int
    seconds: float  # since it was closed, or opened


class PostgresPartitions:
    """Closes and drops partitions; any number of processes may try."""

    def __init__(self, pool: PostgresPool, policy: PartitionPolicy | None = None) -> None:
        self._pool = pool
        self._policy = policy or PartitionPolicy()

    async def drop_expired(self, retention_seconds: float) -> int:
        """Drop partitions whose rows were delivered longer ago; returns how many rows they had.

        The oldest goes first: while it can't be dropped, no other is. Closes the open partition
        when it is its time. Safe to repeat. Raises OutboxUnavailableError; what is done stays done.
        """
        dropped = await self._drop_detached()
        is_refused = False
        for partition in await self._partitions():
            if partition.last_seq is None:
                await self._close(partition, retention_seconds)
            elif is_refused or partition.seconds < retention_seconds:
                continue
            elif not await self._detach(retention_seconds):
                is_refused = True
                continue
            dropped += await self._drop_detached()
        return dropped

    async def spared(self, retention_seconds: float) -> tuple[int, int]:
        """The seqs, from and to, that a purge leaves alone: they will be dropped.

        A partition that could not be dropped for long is not among them.
        """
        overdue_seconds = retention_seconds * (1 + 2 * self._policy.share)
        found = await self._partitions()
        waiting = [
            one.from_seq
            for one in found
            if one.last_seq is not None and one.seconds < overdue_seconds
        ]
        return (waiting[0], found[-1].from_seq) if waiting else (0, 0)

    async def _partitions(self) -> list[_Partition]:
        """Those that are not detached, the open one last."""
        return [_Partition(*row) for row in await self._pool.ask(FIGURES)]

    async def _close(self, partition: _Partition, retention_seconds: float) -> None:
        seconds = retention_seconds * self._policy.share
        if (
            self._policy.least_seconds <= seconds <= partition.seconds
            and partition.drawn >= self._policy.least_rows
            and len(await self._partitions()) < self._policy.most
        ):
            await self._pool.ask(MAKE)
            await self._pool.ask(CLOSE)

    async def _detach(self, retention_seconds: float) -> bool:
        given = {
            "older_than_ms": int(retention_seconds * 1000),
            "most_staying": self._policy.most_staying,
            "most_staying_bytes": self._policy.most_staying_bytes,
        }
        [(detached,)] = await self._pool.ask(DETACH, given)
        return bool(detached)

    async def _drop_detached(self) -> int:
        dropped = 0
        while True:
            [(rows,)] = await self._pool.ask(DROP, {"page": self._policy.page}, repeat_with=None)
            if rows is None:
                return dropped
            dropped += int(rows)
