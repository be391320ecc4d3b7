"""What goes wrong around the service in a history: Inngest, the disk, the wall clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine

from tests.support.simulation.inline_world import Clocks, Disk
from tests.support.simulation.simulated_inngest import MODES, SimulatedInngest


class Troubles:
    """Draws troubles, one of each kind at a time."""

    def __init__(
        self, chance: random.Random, inngest: SimulatedInngest, disk: Disk, clocks: Clocks
    ) -> None:
        self._chance = chance
        self._inngest = inngest
        self._disk = disk
        self._clocks = clocks

    def works(self) -> list[Coroutine[None, None, None]]:
        """Each makes trouble until it is cancelled."""
        return [self._with_inngest(), self._with_the_disk(), self._with_the_clock()]

    def end(self) -> None:
        """All is well again, but for the wall clock."""
        self._inngest.mode = None
        self._disk.failing = self._disk.hang_seconds = 0.0

    async def _with_inngest(self) -> None:
        while True:
            self._inngest.mode = None
            await asyncio.sleep(self._chance.expovariate(1 / 900))
            mode = self._chance.choice(MODES)
            if mode == "away":
                self._inngest.stop()
            self._inngest.mode = mode
            await asyncio.sleep(self._chance.choice([0.5, 10, 120, 1800]))

    async def _with_the_disk(self) -> None:
        while True:
            self._disk.failing = self._disk.hang_seconds = 0.0
            await asyncio.sleep(self._chance.expovariate(1 / 1800))
            if self._chance.random() < 0.5:
                self._disk.failing = self._chance.choice([0.05, 0.5, 1.0])
            else:
                self._disk.hang_seconds = self._chance.choice([0.05, 1.0, 8.0])
            await asyncio.sleep(self._chance.choice([0.1, 5, 60]))

    async def _with_the_clock(self) -> None:
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / 7200))
            self._clocks.jump_seconds += self._chance.choice([-3600, -1, 1, 3600])
