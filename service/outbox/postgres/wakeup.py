"""Wakes waiting claims of this process when rows may be due."""

from __future__ import annotations

import asyncio


class Wakeup:
    """Wakes; `generation` grows with every wake-up, `waiting` claims wait now."""

    def __init__(self) -> None:
        self.generation = 0
        self.waiting = 0
        self._woken = asyncio.Event()

    def rows_are_due(self) -> None:
        """Wake the claims that wait."""
        self.generation += 1
        self._woken.set()
        self._woken = asyncio.Event()

    async def wait(self, generation: int) -> None:
        """Return after a wake-up since `generation` was read."""
        woken = self._woken
        if generation == self.generation:
            self.waiting += 1
            try:
                await woken.wait()
            finally:
                self.waiting -= 1
