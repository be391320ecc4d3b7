"""The room for an event, without a count for each post.

The counts are read about once a second while posts come; this process adds those of its own posts
that the read did not show. Posts of other processes are seen at the next read, so a limit may be
exceeded by what they accept meanwhile. No post is refused because of an old count alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Self

from inngest_outbox.errors import OutboxFullError, OutboxUnavailableError, TooManyPendingError
from inngest_outbox.outbox.limits import FairShare, Limits, Usage
from inngest_outbox.outbox.postgres.counts import PostgresCounts, Tally
from inngest_outbox.supervisor import Supervisor

_EVERY_SECONDS = 1.0
_IDLE_SECONDS = 10.0
_LEAST_SECONDS = 0.02
_READ_SECONDS = 5.0
_READS = 5


class PostgresQuota:
    """Admits events while there is room; an async context manager."""

    def __init__(
        self,
        counts: PostgresCounts,
        supervisor: Supervisor,
        limits: Limits,
        fair_share: FairShare,
    ) -> None:
        self._counts = counts
        self._supervisor = supervisor
        self._limits = limits
        self._fair_share = fair_share
        self._grown: set[str] = set()
        self._put = Tally()  # what this process has stored since the last read began
        self._entering = Tally()
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        self._used = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._read()
        self._supervisor.watch("outbox-count", self._keep_reading)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("outbox-count")

    @property
    def pending(self) -> int:
        """The number of rows that are pending or delivering, as far as this process knows."""
        return self._counts.total[0] + self._put.rows

    async def admit(self, owner: str, rows: int, size: int, *, has_user: bool = True) -> None:
        """Reserve a place for so many rows and bytes, until `entered` reports the result.

        The rows of an owner without a user have the limit of the whole outbox only. Raises
        TooManyPendingError and OutboxFullError.
        """
        refusal = self._refusal(owner if has_user else None, rows, size)
        for _ in range(_READS):
            if refusal is None:
                break
            await self._read()
            refusal = self._refusal(owner if has_user else None, rows, size)
            if not self._put.rows and not self._entering.rows:
                break  # nothing is counted twice
        if refusal:
            raise refusal
        self._entering.add(owner, rows, size)
        if self._is_noisy(owner):
            self._grown.add(owner)

    def has_fair_share(self, owner: str) -> bool:
        """True when few rows of `owner` wait while other owners' rows fill half the queue."""
        noisy = self._counts.noisy | self._grown
        if owner in noisy:
            return False
        noisy_total = sum(self._usage_of(one)[0] for one in noisy)
        return self._fair_share.is_noisy(noisy_total, self._in_all()[0])

    def entered(self, owner: str, reserved: Usage, stored: Usage) -> None:
        """Report which of the reserved rows and bytes are stored; the room of the rest is free."""
        self._entering.add(owner, -reserved[0], -reserved[1])
        if stored[0]:
            self._put.add(owner, *stored)
            self._used.set()

    def _refusal(
        self, owner: str | None, rows: int, size: int
    ) -> OutboxFullError | TooManyPendingError | None:
        try:
            mine = (-rows, -size) if owner is None else self._usage_of(owner)
            self._limits.check(mine, self._in_all(), rows, size)
        except (OutboxFullError, TooManyPendingError) as refusal:
            return refusal
        return None

    def _usage_of(self, owner: str) -> Usage:
        return _sum(self._counts.of(owner), self._put.of(owner), self._entering.of(owner))

    def _in_all(self) -> Usage:
        put, entering = self._put, self._entering
        return _sum(self._counts.total, (put.rows, put.bytes), (entering.rows, entering.bytes))

    async def _keep_reading(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_SECONDS):
                    await self._used.wait()
            self._used.clear()
            await self._read()
            await asyncio.sleep(_EVERY_SECONDS)

    async def _read(self) -> None:
        """Read the counts, unless they were read since the request.

        An event that is stored during the read may be counted twice until the next one; `admit`
        refuses no event for that.
        """
        asked_at = time.monotonic()
        async with self._reading:
            if self._read_at > asked_at:
                return
            await asyncio.sleep(max(0.0, self._read_at + _LEAST_SECONDS - time.monotonic()))
            self._read_at = time.monotonic()
            shown = self._put.copy()
            try:
                await self._counts.read(_READ_SECONDS)
            except OutboxUnavailableError:
                return
            self._put.subtract(shown)
            self._grown = {one for one in self._grown if self._is_noisy(one)}

    def _is_noisy(self, owner: str) -> bool:
        return self._usage_of(owner)[0] >= self._fair_share.noisy_rows


def _sum(*usage: Usage) -> Usage:
    return sum(rows for rows, _ in usage), sum(size for _, size in usage)
