"""The counts of each owner, kept by each statement; no table is ever counted.

Every statement that changes a count adds a row to `changes` in its own commit. From time to time
one process folds the old ones into `counts` and `totals`. In every snapshot the folded figures plus
the later changes are exact. The cost does not grow with waiting, delivered or dead rows.
"""

from __future__ import annotations

from typing import Self

from inngest_outbox.outbox.limits import FairShare, Usage
from inngest_outbox.outbox.postgres.database.pool import PostgresPool

_NOTHING: Usage = (0, 0)


class Tally:
    """Adds up how many rows wait and how many bytes are stored; parts may be negative."""

    def __init__(self, usage: dict[str, Usage] | None = None) -> None:
        self._usage = usage or {}
        self.rows = sum(rows for rows, _ in self._usage.values())
        self.bytes = sum(size for _, size in self._usage.values())

    def of(self, owner: str) -> Usage:
        """The rows and bytes of one owner."""
        return self._usage.get(owner, _NOTHING)

    def add(self, owner: str, rows: int, size: int) -> None:
        """Add rows and bytes, or subtract them when negative."""
        rows_before, size_before = self.of(owner)
        usage = (rows_before + rows, size_before + size)
        if usage == _NOTHING:
            self._usage.pop(owner, None)
        else:
            self._usage[owner] = usage
        self.rows += rows
        self.bytes += size

    def owners(self) -> set[str]:
        """The owners with rows."""
        return set(self._usage)

    def subtract(self, other: Tally) -> None:
        """Subtract `other`."""
        for owner, (rows, size) in other._usage.items():
            self.add(owner, -rows, -size)

    def copy(self) -> Self:
        """A copy that changes alone."""
        return type(self)(self._usage.copy())


class PostgresCounts:
    """The counts of each owner as of the last read, which reads only the changes."""

    def __init__(self, pool: PostgresPool, fair_share: FairShare) -> None:
        self._pool = pool
        self._noisy_rows = fair_share.noisy_rows
        self._after: int | None = None
        self._returns = pool.returns
        self._base = Tally()
        self._rest = Tally()
        # Owners with so many waiting rows that they may fill the queue.
        self.noisy: set[str] = set()

    @property
    def total(self) -> Usage:
        """The number of rows that are pending or delivering, and of stored bytes."""
        return self._base.rows + self._rest.rows, self._base.bytes + self._rest.bytes

    def of(self, owner: str) -> Usage:
        """The number of rows of `owner` that are pending or delivering, and its stored bytes."""
        rows, size = self._base.of(owner)
        more_rows, more_size = self._rest.of(owner)
        return rows + more_rows, size + more_size

    async def read(self, within_seconds: float) -> None:
        """Bring the counts up to date. Raises OutboxUnavailableError."""
        if self._returns != self._pool.returns:
            self._returns, self._after = self._pool.returns, None
        base, after = self._base, self._after
        if after is None:
            base, after = await self._read_folded(within_seconds)
        rows = await self._pool.run("READ_CHANGES", {"after": after}, within_seconds=within_seconds)
        if not rows[0][-1]:
            self._after = None
            await self.read(within_seconds)
            return
        changed = self._rest.owners()
        if base is not self._base:
            changed |= base.owners() | self.noisy
        self._base, self._rest = base, Tally()
        for _, is_safe, owner, waiting, size, _ in rows:
            if owner is not None:
                (self._base if is_safe else self._rest).add(owner, waiting, size)
                changed.add(owner)
        self._after = max(after, rows[0][0])
        self._weigh(changed)

    async def _read_folded(self, within_seconds: float) -> tuple[Tally, int]:
        rows = await self._pool.run("READ_COUNTS", within_seconds=within_seconds)
        usage = {row[1]: (row[2], row[3]) for row in rows if row[1] is not None}
        return Tally(usage), rows[0][0]

    def _weigh(self, owners: set[str]) -> None:
        noisy = {owner for owner in owners if self.of(owner)[0] >= self._noisy_rows}
        self.noisy = (self.noisy - owners) | noisy
