"""One seed, one history: the real SQLite store, relay and confirmer, hours in one virtual clock.

Faults are drawn for the disk, Inngest, the wall clock and the process. At the end all is well
again, and everything that was answered must have ended where it belongs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path

from inngest_outbox.errors import OutboxError
from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.simulation.clients import HEALTHY, Clients, HistoryError
from tests.support.simulation.delivering import Parts, delivering
from tests.support.simulation.end_checks import check_end, check_runs
from tests.support.simulation.inline_world import Clocks, Disk
from tests.support.simulation.operators import Operators
from tests.support.simulation.simulated_inngest import SimulatedInngest
from tests.support.simulation.step_checks import StepChecks
from tests.support.simulation.troubles import Troubles

HEALING_SECONDS = 2 * 3600.0
_KILL_SECONDS = 0.01  # an array is under way
_LONG_DOWN_SECONDS = 30 * 3600.0
_LIMITS = {"max_pending": 5_000, "max_pending_per_user": 2_000}


class History:
    """One history. `hours` of trouble, then all is well."""

    def __init__(self, seed: int, folder: Path, clocks: Clocks, disk: Disk, hours: float) -> None:
        self._chance = random.Random(seed)
        self._folder = folder
        self._clocks = clocks
        self._disk = disk
        self._seconds = hours * 3600
        self._generation = 0
        self._outbox: SqliteOutbox | None = None
        self.inngest = SimulatedInngest(
            self._chance, clocks, rate=self._chance.choice([1, 5, 2000])
        )
        self._max_unconfirmed = self._chance.choice([50, 150, 500])
        self.clients = Clients(
            self._chance,
            clocks,
            disk,
            is_alive=lambda outbox: outbox is self._outbox,
            broken=self._see_broken,
        )
        self.down_seconds = 0.0
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._troubles = Troubles(self._chance, self.inngest, disk, clocks)
        self.told = self.clients.told
        self._operators = Operators(
            self._chance, self.told, lambda: self.inngest.arrivals, self._see_broken
        )

    async def run(self) -> None:
        """Live through it; raises HistoryError."""
        storing = asyncio.create_task(self.inngest.run())
        until = self._clocks.monotonic() + self._seconds
        while (left := until - self._clocks.monotonic() + self.down_seconds) > 0:
            down = self._chance.choices([0.0, 60.0, _LONG_DOWN_SECONDS], [0.75, 0.1, 0.15])[0]
            async with self._process() as (outbox, parts):
                life = max(1.0, min(self._chance.expovariate(1 / 3600), left))
                await self._live(outbox, life, self._troubles.works(parts.relay))
                if down == _LONG_DOWN_SECONDS:
                    self.inngest.mode = "lost"
                    await self._live(outbox, 30.0, self._troubles.other_works(parts.relay))
                if self._chance.random() < 0.5:
                    await self._troubles.until_a_send()
                last = asyncio.create_task(self.clients.post_array(outbox))
                await asyncio.sleep(self._chance.uniform(0.0, _KILL_SECONDS))
                self._generation += 1
                self._copy_as_killed()
            await asyncio.gather(last, return_exceptions=True)
            self.told.kills += 1
            await asyncio.sleep(down)
            self.down_seconds += down
        self._troubles.end()
        async with self._process() as (outbox, _):
            await self._recover(outbox)
        storing.cancel()
        await asyncio.gather(storing, return_exceptions=True)

    async def _recover(self, outbox: SqliteOutbox) -> None:
        """All is well: what waits must end where it belongs."""
        await outbox.repairs.set_paused(paused=False, actor="kim")
        passing = asyncio.create_task(self._pass(outbox))
        await self._settled(outbox)
        passing.cancel()
        await asyncio.gather(passing, return_exceptions=True)
        await self._settled(outbox)
        await check_end(outbox, self.told, self.inngest)
        self._check_steps()

    @contextlib.asynccontextmanager
    async def _process(self) -> AsyncIterator[tuple[SqliteOutbox, Parts]]:
        """One process at work on the file of this generation."""
        async with (
            self._opened(self._path()) as outbox,
            delivering(outbox, self.inngest, self._max_unconfirmed) as parts,
        ):
            StepChecks(outbox, parts, HEALTHY, self._see_broken)
            self._outbox = outbox
            try:
                yield outbox, parts
            finally:
                self._outbox = None

    @contextlib.asynccontextmanager
    async def _opened(self, path: Path) -> AsyncIterator[SqliteOutbox]:
        failing, self._disk.failing = self._disk.failing, 0.0
        opening = open_sqlite_outbox(path, **_LIMITS)
        outbox = await opening.__aenter__()
        self._disk.failing = failing
        try:
            yield outbox
        finally:
            with contextlib.suppress(OutboxError):
                await opening.__aexit__(None, None, None)

    def _path(self) -> Path:
        return self._folder / str(self._generation) / "outbox.db"

    def _copy_as_killed(self) -> None:
        """What the next process finds is what the killed one had written up to now."""
        before = self._folder / str(self._generation - 1)
        after = self._path().parent
        after.mkdir(parents=True)
        for name in ("outbox.db", "outbox.db-wal", "outbox.db.lock"):
            if (before / name).exists():
                shutil.copyfile(before / name, after / name)
        self._outbox = None  # nobody hears of what the killed process does from now on

    async def _live(
        self, outbox: SqliteOutbox, seconds: float, troubles: Sequence[Coroutine[None, None, None]]
    ) -> None:
        works = (self.clients.post(outbox), self._operators.operate(outbox), *troubles)
        tasks = [asyncio.create_task(work) for work in works]
        waits = [*tasks, self._broken]
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        self._check_steps()

    def _see_broken(self, words: str) -> None:
        if not self._broken.done():
            self._broken.set_exception(HistoryError(words))

    def _check_steps(self) -> None:
        """What was seen broken on the way."""
        if self._broken.done():
            self._broken.result()
        check_runs(self.inngest)

    async def _pass(self, outbox: SqliteOutbox) -> None:
        """Good events: an event that fails alone is judged by what passes beside it."""
        while True:
            await asyncio.sleep(20)
            event = self.clients.event(HEALTHY)
            await outbox.intake.append(event)
            self.told.answered[event.id] = HEALTHY

    async def _settled(self, outbox: SqliteOutbox) -> None:
        """Wait until nothing waits that was there before."""
        last = self.clients.numbers
        until = self._clocks.monotonic() + HEALING_SECONDS
        while waiting := await self._waiting(outbox, last):
            if self._clocks.monotonic() > until:
                stats = await outbox.inspector.stats()
                raise HistoryError(f"still waiting long after all was well: {waiting[0]}, {stats}")
            await asyncio.sleep(30)

    async def _waiting(self, outbox: SqliteOutbox, last: int) -> list[Row]:
        found = []
        for state in (State.PENDING, State.DELIVERING, State.SENT):
            rows = await outbox.inspector.rows(Filter(state=state, limit=10_000))
            found += [row for row in rows if int(row.id[2:]) <= last]
        return found
