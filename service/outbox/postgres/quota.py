"""Whether there is room for an event, without a count for each post.

The counts are read about once a second while posts come; this process adds its own posts since
then. Posts of other processes are seen at the next read, so a limit may be exceeded by what they
accept meanwhile. No post is refused because of an old count alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import Self

from service.errors import OutboxFullError, OutboxUnavailableError, TooManyPendingError
from service.outbox.postgres.counts import PostgresCounts
from service.outbox.postgres.pool import PostgresPool
from service.supervisor import Supervisor

# The same limits hold for applications that append in SQL.
SET_LIMITS = """
UPDATE outbox_meta SET max_pending = %(pending)s, max_pending_per_user = %(per_user)s
WHERE (max_pending, max_pending_per_user) IS DISTINCT FROM (%(pending)s, %(per_user)s)
"""

_EVERY_SECONDS = 1.0
_IDLE_SECONDS = 10.0
_LEAST_SECONDS = 0.02
_READ_SECONDS = 5.0
_RETRY_AFTER_SECONDS = 5
_READS = 5


class PostgresQuota:
    """Admits events while there is room; an async context manager."""

    def __init__(
        self,
        pool: PostgresPool,
        counts: PostgresCounts,
        supervisor: Supervisor,
        max_pending: int,
        max_pending_per_user: int,
    ) -> None:
        self._pool = pool
        self._counts = counts
        self._supervisor = supervisor
        self._max_pending = max_pending
        self._max_pending_per_user = max_pending_per_user
        self._put: Counter[str] = Counter()
        self._entering: Counter[str] = Counter()
        self._put_total = self._entering_total = 0
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        self._used = asyncio.Event()
        self._used.set()

    async def __aenter__(self) -> Self:
        given = {"pending": self._max_pending, "per_user": self._max_pending_per_user}
        await self._pool.run(SET_LIMITS, given)
        self._supervisor.watch("outbox-count", self._keep_reading)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("outbox-count")

    @property
    def pending(self) -> int:
        """How many events are not settled, to the knowledge of this process."""
        return self._counts.total + self._put_total + self._entering_total

    async def admit(self, owner: str) -> None:
        """Reserve a place for one event of this owner, until `entered` reports the result.

        Raises TooManyPendingError and OutboxFullError.
        """
        refusal = self._refusal(owner)
        for _ in range(_READS):
            if refusal is None:
                break
            await self._read()
            refusal = self._refusal(owner)
            if not self._put_total:
                break  # nothing was stored during the read, so nothing is counted twice
        if refusal:
            raise refusal
        self._entering[owner] += 1
        self._entering_total += 1

    def entered(self, owner: str, *, stored: bool) -> None:
        """Report whether the event is stored. If not, its place is free."""
        self._entering[owner] -= 1
        self._entering_total -= 1
        if not self._entering[owner]:
            del self._entering[owner]
        if stored:
            self._put[owner] += 1
            self._put_total += 1
            self._used.set()

    def _refusal(self, owner: str) -> OutboxFullError | TooManyPendingError | None:
        mine = self._counts.of(owner) + self._put[owner] + self._entering[owner]
        if mine >= self._max_pending_per_user:
            return TooManyPendingError(retry_after_seconds=_RETRY_AFTER_SECONDS)
        if self.pending >= self._max_pending:
            return OutboxFullError(retry_after_seconds=_RETRY_AFTER_SECONDS)
        return None

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

        An event that is stored while the read runs may be counted twice until the next read;
        `admit` refuses nobody for that.
        """
        asked_at = time.monotonic()
        async with self._reading:
            if self._read_at > asked_at:
                return
            await asyncio.sleep(max(0.0, self._read_at + _LEAST_SECONDS - time.monotonic()))
            self._read_at = time.monotonic()
            before, before_total = self._put.copy(), self._put_total
            try:
                await self._counts.read(_READ_SECONDS)
            except OutboxUnavailableError:
                return
            self._put -= before
            self._put_total -= before_total
