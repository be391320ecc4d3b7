"""What goes wrong around the service in a history: Inngest, the disk, the wall clock."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine

from inngest_outbox.relay.relay import Relay
from tests.support.simulation.inline_world import Clocks, Disk
from tests.support.simulation.simulated_inngest import MODES, SimulatedInngest

_SEND_SECONDS = 120.0


class Troubles:
    """Draws troubles, one of each kind at a time."""

    def __init__(
        self, chance: random.Random, inngest: SimulatedInngest, disk: Disk, clocks: Clocks
    ) -> None:
        self._chance = chance
        self._inngest = inngest
        self._disk = disk
        self._clocks = clocks

    def works(self, relay: Relay) -> list[Coroutine[None, None, None]]:
        """Each makes trouble until it is cancelled."""
        return [self._with_inngest(), *self.other_works(relay)]

    def other_works(self, relay: Relay) -> list[Coroutine[None, None, None]]:
        """The same without Inngest's troubles."""
        return [
            self._with_the_disk(),
            self._with_a_commit(),
            self._with_the_clock(),
            self._with_a_send(relay),
        ]

    async def until_a_send(self) -> None:
        """Until a request is on its way to Inngest, but not for ever."""
        self._inngest.asked.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SEND_SECONDS):
                await self._inngest.asked.wait()

    def end(self) -> None:
        """All is well again, but for the wall clock."""
        self._inngest.mode = None
        self._disk.heal()

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
            self._disk.heal()
            await asyncio.sleep(self._chance.expovariate(1 / 1800))
            if self._chance.random() < 0.5:
                self._disk.trouble(failing=self._chance.choice([0.05, 0.5, 1.0]))
            else:
                self._disk.trouble(hang_seconds=self._chance.choice([0.05, 1.0, 8.0]))
            await asyncio.sleep(self._chance.choice([0.1, 5, 60]))

    async def _with_a_commit(self) -> None:
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / 300))
            self._disk.fails_next_append = True

    async def _with_the_clock(self) -> None:
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / 1800))
            await self.until_a_send()
            self._clocks.jump_seconds += self._chance.choice([-3600, -1, 1, 3600])

    async def _with_a_send(self, relay: Relay) -> None:
        """End a send that is under way: its rows are left to their lease."""
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / 900))
            await self.until_a_send()
            sends = sorted(relay._deliveries, key=asyncio.Task.get_name)
            if sends:
                self._chance.choice(sends).cancel()
