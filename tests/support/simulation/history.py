"""One seed, one history: the real SQLite store, relay and confirmer, hours in one virtual clock.

Faults are drawn for the disk, Inngest, the wall clock and the process. At the end all is well
again, and everything that was answered must have ended where it belongs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import OutboxError, RefusedError
from service.observe.recorder import NullRecorder
from service.outbox.event import Event
from service.outbox.keys import IdempotencyKey
from service.outbox.model import Filter, Row, State
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from service.relay.confirmation_report import ConfirmationReport
from service.relay.confirmer import Confirmer
from service.relay.dedupe_horizon import DedupeHorizon
from service.relay.relay import Relay
from service.relay.relay_limits import RelayLimits
from service.relay.unconfirmed import Unconfirmed
from tests.support.simulation.inline_world import Clocks, Disk
from tests.support.simulation.simulated_inngest import FAILING, REFUSED, SimulatedInngest
from tests.support.simulation.troubles import Troubles

HEALTHY = "healthy"
HEALING_SECONDS = 2 * 3600.0
MOST_WAIT_SECONDS = 30.0
_LIMITS = {"max_pending": 5_000, "max_pending_per_user": 2_000}
_DIGEST = bytes(32)


class HistoryError(AssertionError):
    """A promise was broken."""


@dataclass
class Told:
    """What the clients and the operator were told."""

    answered: dict[str, str] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    discarded: set[str] = field(default_factory=set)
    kills: int = 0


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
        self._numbers = 0
        self._broken: list[HistoryError] = []
        self.inngest = SimulatedInngest(
            self._chance, clocks, rate=self._chance.choice([0.5, 5, 2000])
        )
        self._troubles = Troubles(self._chance, self.inngest, disk, clocks)
        self.told = Told()

    async def run(self) -> None:
        """Live through it; raises HistoryError."""
        storing = asyncio.create_task(self.inngest.run())
        until = self._clocks.monotonic() + self._seconds
        while self._clocks.monotonic() < until:
            life = min(self._chance.expovariate(1 / 3600), until - self._clocks.monotonic())
            async with self._process() as outbox:
                await self._live(outbox, max(1.0, life))
                self._generation += 1
                self._copy_as_killed()
            self.told.kills += 1
        self._troubles.end()
        async with self._process() as outbox:
            await outbox.repairs.set_paused(paused=False, actor="kim")
            passing = asyncio.create_task(self._pass(outbox))
            await self._settled(outbox)
            passing.cancel()
            await asyncio.gather(passing, return_exceptions=True)
            await self._settled(outbox)
            await self._check(outbox)
        storing.cancel()
        await asyncio.gather(storing, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _process(self) -> AsyncIterator[SqliteOutbox]:
        """One process at work on the file of this generation."""
        path = self._path()
        async with contextlib.AsyncExitStack() as stack:
            outbox = await stack.enter_async_context(self._opened(path))
            self._outbox = outbox
            unconfirmed = Unconfirmed(500)
            unconfirmed.recount(await _stubborn(outbox.confirmations.count_sent))
            ids = outbox.confirmations.inngest_ids
            relay = Relay(
                outbox.queue,
                outbox.delivery,
                self.inngest,
                NullRecorder(),
                RelayLimits(
                    max_events=50,
                    max_bytes=1 << 20,
                    senders=4,
                    send_timeout_seconds=10,
                    drain_seconds=1,
                ),
                ids=ids,
                unconfirmed=unconfirmed,
                horizon=DedupeHorizon(self.inngest, ids),
            )
            report = ConfirmationReport(NullRecorder(), relay.confirmed)
            confirmer = Confirmer(outbox.confirmations, self.inngest, ids, unconfirmed, report)
            works = (relay.run, relay.sync_breaker, confirmer.run)
            tasks = [asyncio.create_task(_kept(work)) for work in works]
            try:
                yield outbox
            finally:
                self._outbox = None
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await relay.stop()

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

    async def _live(self, outbox: SqliteOutbox, seconds: float) -> None:
        works = (self._post(outbox), self._operate(outbox), *self._troubles.works())
        tasks = [asyncio.create_task(work) for work in works]
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        if self._broken:
            raise self._broken[0]

    async def _post(self, outbox: SqliteOutbox) -> None:
        posts: set[asyncio.Task[None]] = set()
        try:
            while True:
                await asyncio.sleep(self._chance.expovariate(1 / 20))
                for _ in range(self._chance.choice([1, 1, 3, 40])):
                    post = asyncio.create_task(self._post_one(outbox))
                    posts.add(post)
                    post.add_done_callback(posts.discard)
        finally:
            for post in posts:
                post.cancel()

    async def _post_one(self, outbox: SqliteOutbox) -> None:
        kind = self._chance.choices([HEALTHY, REFUSED, FAILING], [0.97, 0.02, 0.01])[0]
        event = self._event(kind)
        key = None
        if self._chance.random() < 0.2:
            key = IdempotencyKey(f"k-{self._chance.randrange(12)}", _DIGEST)
        began = self._clocks.monotonic()
        try:
            receipt = await outbox.intake.append(event, key=key)
        except (OutboxError, RefusedError):
            return
        finally:
            waited = self._clocks.monotonic() - began
            if waited > MOST_WAIT_SECONDS:
                self._broken.append(HistoryError(f"a post waited {waited:g} s"))
        if self._outbox is not outbox:
            return
        known = self.told.keys.setdefault((event.owner, key.key), receipt.event_id) if key else None
        if known is not None and known != receipt.event_id and known not in self.told.discarded:
            words = f"one key gave two events: {known} and {receipt.event_id}"
            self._broken.append(HistoryError(words))
        if not receipt.replayed:
            self.told.answered[receipt.event_id] = kind

    async def _operate(self, outbox: SqliteOutbox) -> None:
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / 1200))
            with contextlib.suppress(OutboxError):
                await self._act(outbox)

    async def _act(self, outbox: SqliteOutbox) -> None:
        repairs = outbox.repairs
        match self._chance.randrange(4):
            case 0:
                wanted = Filter(state=State.DEAD, limit=self._chance.randrange(1, 20))
                await repairs.replay(wanted, actor="kim")
            case 1:
                rows = await outbox.inspector.rows(Filter(state=State.DEAD, limit=3))
                wanted = Filter(ids=tuple(row.id for row in rows))
                self.told.discarded |= set(wanted.ids or ())
                await repairs.discard(wanted, actor="kim")
            case 2:
                await repairs.set_paused(paused=True, actor="kim")
                await asyncio.sleep(self._chance.uniform(1, 600))
                await repairs.set_paused(paused=False, actor="kim")
            case _:
                await outbox.inspector.stats()

    async def _pass(self, outbox: SqliteOutbox) -> None:
        """Good events: an event that fails alone is judged by what passes beside it."""
        while True:
            await asyncio.sleep(20)
            event = self._event(HEALTHY)
            await outbox.intake.append(event)
            self.told.answered[event.id] = HEALTHY

    async def _settled(self, outbox: SqliteOutbox) -> None:
        """Wait until nothing waits that was there before."""
        last = self._numbers
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

    async def _check(self, outbox: SqliteOutbox) -> None:
        if outbox.undelivered:
            raise HistoryError(f"{outbox.undelivered} rows count as undelivered, none is")
        held = set(self.inngest.stored.values())
        for event_id, kind in self.told.answered.items():
            row = await outbox.intake.find(event_id)
            if row is None:
                if event_id not in self.told.discarded:
                    raise HistoryError(f"answered and gone: {event_id} ({kind})")
            elif kind == HEALTHY and row.state is not State.DELIVERED:
                raise HistoryError(f"a good event is {row.state}: {row}")
            elif kind != HEALTHY and row.state is not State.DEAD:
                raise HistoryError(f"a bad event is {row.state}: {row}")
            elif kind == HEALTHY and event_id not in held:
                raise HistoryError(f"delivered, and Inngest does not hold it: {row}")
        for event_id, runs in self.inngest.runs.items():
            if len(runs) > 1:
                raise HistoryError(f"an event ran {len(runs)} times: {event_id}")

    def _event(self, kind: str) -> Event:
        self._numbers += 1
        event_id = f"e-{self._numbers}"
        owner = f"u-{self._chance.randrange(20)}"
        payload = b'{"id":"%b","name":"%b"}' % (event_id.encode(), kind.encode())
        return Event(event_id, kind, owner, owner, int(self._clocks.wall() * 1000), payload)


async def _kept(work: Callable[[], Awaitable[object]]) -> None:
    """Start a background task again that fails, as the supervisor does."""
    while True:
        with contextlib.suppress(OutboxError):
            await work()
        await asyncio.sleep(0.1)


async def _stubborn(ask: Callable[[], Awaitable[int]]) -> int:
    while True:
        try:
            return await ask()
        except OutboxError:
            await asyncio.sleep(1)
