"""How many posts run at once.

The others wait in order, each for about the same time at most, so one timer serves all of them:
thousands of waiting posts would each hold one of their own. Those that have waited for that time
leave a few at once, because thousands that run in one turn of the loop hold up everything else, and
hold their events all at the same time.
"""

from __future__ import annotations

import asyncio
from collections import deque

_LATE_AT_ONCE = 64
_LATE_EACH_SECONDS = 0.01


class Slots:
    """`count` slots. One is waited for `wait_seconds` at most."""

    def __init__(self, count: int, wait_seconds: float) -> None:
        self._free = count
        self._wait_seconds = wait_seconds
        self._waiting: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> bool:
        """Take a slot if one is free in time; whether it is taken."""
        if self._free > 0:
            self._free -= 1
            return True
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((loop.time() + self._wait_seconds, taken))
        self._watch(loop)
        try:
            return await taken
        except asyncio.CancelledError:
            if not taken.cancelled() and taken.result():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Hand a taken slot to the next in line."""
        while self._waiting:
            _, taken = self._waiting.popleft()
            if not taken.done():
                taken.set_result(True)
                return
        self._free += 1

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is None and self._waiting:
            at = max(self._waiting[0][0], loop.time() + _LATE_EACH_SECONDS)
            self._timer = loop.call_at(at, self._end_waits, loop)

    def _end_waits(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now, late = loop.time(), 0
        while late < _LATE_AT_ONCE and self._waiting and self._waiting[0][0] <= now:
            _, taken = self._waiting.popleft()
            if not taken.done():
                taken.set_result(False)
                late += 1
        self._watch(loop)
