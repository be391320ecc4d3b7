"""How many events wait, for the limits on intake, without a count per post.

A count of the table is taken about once a second, seldom enough to cost a tenth of its own time,
and what this process has put since is added. Other processes' posts are seen at the next count, so
a limit may be passed by what they take in that time; nobody is refused on an old count alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Self

from service.errors import OutboxFullError, OutboxUnavailableError, TooManyPendingError
from service.outbox.postgres.pool import PostgresPool
from service.supervisor import Supervisor

# Rows that are not settled, by user; the few under a claim come second.
COUNT = """
SELECT owner, count(*) FROM outbox_ready GROUP BY owner
UNION ALL
SELECT owner, count(*) FROM outbox
WHERE seq = ANY(ARRAY(SELECT unnest(seqs) FROM outbox_claims)) GROUP BY owner
"""

_EVERY_SECONDS = 1.0
_AT_MOST_EVERY_SECONDS = 0.02
_PATIENCE_SECONDS = 0.05
_COST_FACTOR = 10
_COUNT_WITHIN_SECONDS = 10.0
_RETRY_AFTER_SECONDS = 5


class PostgresQuota:
    """Admits posts while there is room; an async context manager."""

    def __init__(
        self,
        pool: PostgresPool,
        supervisor: Supervisor,
        max_pending: int,
        max_pending_per_user: int,
    ) -> None:
        self._pool = pool
        self._supervisor = supervisor
        self._max_pending = max_pending
        self._max_pending_per_user = max_pending_per_user
        self._counted: Counter[str] = Counter()
        self._put: Counter[str] = Counter()
        self._entering: Counter[str] = Counter()
        self._counted_total = self._put_total = self._entering_total = 0
        self._counted_at = self._next_count_at = 0.0
        self._counting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._supervisor.watch("outbox-count", self._keep_counting)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("outbox-count")

    @property
    def pending(self) -> int:
        """How many events are not settled, as far as this process knows."""
        return self._counted_total + self._put_total + self._entering_total

    async def admit(self, owner: str) -> None:
        """Take a place for one event of this user, until `entered` tells what became of it.

        Raises TooManyPendingError and OutboxFullError.
        """
        if self._refusal(owner):
            await self._count()
        refusal = self._refusal(owner)
        if refusal:
            raise refusal
        self._entering[owner] += 1
        self._entering_total += 1

    def entered(self, owner: str, *, stored: bool) -> None:
        """The event is stored, or may be; or it is not and its place is free."""
        self._entering[owner] -= 1
        self._entering_total -= 1
        if not self._entering[owner]:
            del self._entering[owner]
        if stored:
            self._put[owner] += 1
            self._put_total += 1

    def _refusal(self, owner: str) -> OutboxFullError | TooManyPendingError | None:
        mine = self._counted[owner] + self._put[owner] + self._entering[owner]
        if mine >= self._max_pending_per_user:
            return TooManyPendingError(retry_after_seconds=_RETRY_AFTER_SECONDS)
        if self.pending >= self._max_pending:
            return OutboxFullError(retry_after_seconds=_RETRY_AFTER_SECONDS)
        return None

    async def _keep_counting(self) -> None:
        while True:
            await self._count()
            await asyncio.sleep(max(_EVERY_SECONDS, self._next_count_at - time.monotonic()))

    async def _count(self) -> None:
        """Count, unless the last count was too costly for another one soon.

        An event that is stored while the count runs may be counted twice until the next count.
        """
        asked_at = time.monotonic()
        async with self._counting:
            if self._counted_at > asked_at:
                return
            early = self._next_count_at - time.monotonic()
            if early > _PATIENCE_SECONDS:
                return
            await asyncio.sleep(max(0.0, early))
            started = self._counted_at = time.monotonic()
            before, before_total = self._put.copy(), self._put_total
            try:
                rows = await self._pool.run(COUNT, within_seconds=_COUNT_WITHIN_SECONDS)
            except OutboxUnavailableError:
                return
            counted: Counter[str] = Counter()
            for owner, count in rows:
                counted[owner] += count
            self._counted, self._counted_total = counted, counted.total()
            self._put -= before
            self._put_total -= before_total
            cost = time.monotonic() - started
            self._next_count_at = started + max(_AT_MOST_EVERY_SECONDS, cost * _COST_FACTOR)
