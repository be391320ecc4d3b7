"""Storing what was answered: at once, or behind the answers at a rate.

A self-hosted Inngest answers from memory and stores later. The invariant: an event leaves the queue
only when the store holds it, and what is queued when the server stops is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from service.dev.fake_inngest.clock import MovableClock
from service.dev.fake_inngest.event_store import EventStore
from service.dev.fake_inngest.ledger import Arrival

_TICK_SECONDS = 0.02


class Storing:
    """Moves accepted events into `store`, `rate` a second (None: before they are answered)."""

    def __init__(self, store: EventStore, clock: MovableClock, rate: float | None) -> None:
        self.rate = rate
        self.lost = 0
        self._store = store
        self._clock = clock
        self._queue: deque[Arrival] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """How many answered events are not stored yet."""
        return len(self._queue)

    def accept(self, arrivals: Sequence[Arrival]) -> None:
        """Take events to store, in their order."""
        if self.rate is None and not self._queue:
            self._store.store(arrivals, self._clock.now_ms)
            return
        self._queue.extend(arrivals)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="fake-inngest-storing")

    async def stop(self) -> None:
        """Stop as a process does: what is queued is lost and counted."""
        self.lost += len(self._queue)
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        before, due = loop.time(), 0.0
        while self._queue:
            await asyncio.sleep(_TICK_SECONDS)
            now = loop.time()
            rate = float("inf") if self.rate is None else self.rate
            due = min(due + (now - before) * rate, float(len(self._queue)))
            before = now
            self._store_oldest(int(due))
            due -= int(due)

    def _store_oldest(self, count: int) -> None:
        if count:
            oldest = [self._queue.popleft() for _ in range(count)]
            self._store.store(oldest, self._clock.now_ms)
