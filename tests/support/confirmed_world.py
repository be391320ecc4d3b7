"""A confirmer beside an Inngest that answers at once and stores later, in virtual time.

`rate` is how many events are stored a second.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.held import HeldEvent
from inngest_outbox.inngest.send_result import SendResult
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.outbox.inngest_id import encode_ulid
from inngest_outbox.outbox.model import State
from inngest_outbox.relay.breaker_sync import Announcement
from inngest_outbox.relay.confirmer import Confirmer
from inngest_outbox.relay.report import ConfirmationReport
from inngest_outbox.relay.unconfirmed import Unconfirmed
from tests.support.beside import beside
from tests.support.delivery_model import ModelInngest
from tests.support.delivery_world import World
from tests.support.memory_queue import MemoryConfirmations
from tests.support.memory_rows import IDS, MemoryRows
from tests.support.virtual_time import now

_TICK_SECONDS = 0.05


class StoringInngest:
    """Inngest: `send` answers, `run` stores behind it, `stop` loses what is not stored."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.away = False
        self.refusing = False
        self.answer_seconds = 0.005
        self.refused: set[str | None] = set()
        self.questions = 0
        self.stored: set[int] = set()
        self._shown: list[tuple[str, str]] = []
        self._queue: deque[int] = deque()
        self._arrived = asyncio.Event()

    @property
    def queued(self) -> int:
        return len(self._queue)

    def send(self, seqs: Sequence[int]) -> None:
        self._queue.extend(seqs)
        self._arrived.set()

    def stop(self) -> None:
        self.away = True
        self._queue.clear()

    async def run(self) -> None:
        due = 0.0
        while True:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            await asyncio.sleep(_TICK_SECONDS)
            due = min(due + self.rate * _TICK_SECONDS, float(len(self._queue)))
            for _ in range(int(due)):
                self._store(self._queue.popleft())
            due -= int(due)

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> Sequence[HeldEvent]:
        self.questions += 1
        end = bisect.bisect_left(self._shown, (before, ""))
        below = self._shown[max(0, end - limit) : end]
        await asyncio.sleep(self.answer_seconds)
        if self.away:
            raise InngestApiError("away", reached=False)
        if self.refusing:
            raise InngestApiError("refusing")
        if environment in self.refused:
            raise InngestApiError(f"refuses {environment}", refused=True)
        return [HeldEvent(ulid, event_id) for ulid, event_id in below[::-1]]

    def _store(self, seq: int) -> None:
        self.stored.add(seq)
        bisect.insort(self._shown, (encode_ulid(IDS.number(seq, 0)), f"e-{seq}"))


class LossyInngest(ModelInngest):
    """Hands what it takes to a store, under the ids of the seed."""

    def __init__(self, store: StoringInngest) -> None:
        super().__init__()
        self.store = store
        self.honours_seeds = True

    def _take(self, rows: list[tuple[int, str]]) -> SendResult:
        before = self.times.copy()
        result = super()._take(rows)
        taken = [seq for seq, _ in rows if self.times[seq] > before[seq]]
        self.store.send(taken)
        ids = tuple(IDS.ulid(seq, 0) for seq in taken)
        return replace(result, ids=ids) if ids and self.honours_seeds else result


class ConfirmedWorld:
    """A relay in its world, and a confirmer beside it."""

    def __init__(self, rate: float, *, unconfirmed_max: int = 1_000) -> None:
        self.store = StoringInngest(rate)
        self.inngest = LossyInngest(self.store)
        self.unconfirmed = Unconfirmed(unconfirmed_max)
        self.most_unconfirmed = 0
        world = World(inngest=self.inngest)
        self.outbox, self.add, self.until, self.running = (
            world.outbox,
            world.add,
            world.until,
            world.running,
        )
        relay = world.relay = world.made_relay(
            ids=IDS,
            unconfirmed=self.unconfirmed,
            announcement=Announcement("self-hosted", "on (self-hosted)"),
        )
        report = ConfirmationReport(
            NullRecorder(), relay.confirmed, on_fault=relay.tell_confirmation
        )
        confirmer = Confirmer(self.outbox.confirmations, self.store, IDS, self.unconfirmed, report)
        world.beside += [confirmer.run, self.store.run, self._watch]

    def stop_inngest(self) -> None:
        """It goes away; what it has not stored is lost."""
        self.inngest.mode = "away"
        self.store.stop()

    def start_inngest(self) -> None:
        self.inngest.mode = None
        self.store.away = False

    async def _watch(self) -> None:
        while True:
            unconfirmed = await self.outbox.confirmations.count_sent()
            self.most_unconfirmed = max(self.most_unconfirmed, unconfirmed)
            await asyncio.sleep(0.05)


class ConfirmerWorld:
    """A confirmer alone, between rows in memory and such an Inngest.

    `faults` are those that the report was told of, each once in a row; None: all is well.
    """

    def __init__(self, rate: float) -> None:
        self.rows = MemoryRows(now)
        self.confirmations = MemoryConfirmations(self.rows)
        self.inngest = StoringInngest(rate)
        self.unconfirmed = Unconfirmed(10_000)
        self.confirmer = Confirmer(
            self.confirmations,
            self.inngest,
            IDS,
            self.unconfirmed,
            ConfirmationReport(NullRecorder(), on_fault=self._told),
        )
        self.faults: list[str | None] = []

    def _told(self, fault: str | None) -> None:
        if [fault] != self.faults[-1:]:
            self.faults.append(fault)

    def send(self, seqs: range | list[int], environment: str | None = None) -> None:
        self.send_elsewhere(seqs, environment)
        self.unconfirmed.sent(len(seqs), environment)

    def send_elsewhere(self, seqs: range | list[int], environment: str | None = None) -> None:
        """What another process sends: new rows in the order of their numbers, or waiting ones."""
        self.inngest.send(seqs)
        for seq in seqs:
            meta = Meta(environment=environment)
            new = Event(f"e-{seq}", "n", "u-1", "u-1", 0, b"{}", meta)
            row = self.rows.by_seq.get(seq) or self.rows.append(new)
            self.rows.end_claim(row, State.SENT)
            row.answered_at = now()

    @property
    def sent(self) -> set[int]:
        return self.rows.seqs(State.SENT)

    @property
    def delivered(self) -> set[int]:
        return self.rows.seqs(State.DELIVERED)

    @property
    def resent(self) -> Counter[int]:
        return Counter({row.seq: len(row.notes) for row in self.rows.by_seq.values() if row.notes})

    @property
    def notes(self) -> set[object]:
        return {note.note for row in self.rows.by_seq.values() for note in row.notes}

    async def until(self, reached: Callable[[], bool], seconds: float) -> float:
        began = now()
        while not reached():
            waited = now() - began
            assert waited < seconds, (len(self.delivered), len(self.sent))
            await asyncio.sleep(0.05)
        return now() - began


@contextlib.asynccontextmanager
async def world(rate: float) -> AsyncIterator[ConfirmerWorld]:
    """A confirmer at work until the block ends."""
    one = ConfirmerWorld(rate)
    async with beside(one.inngest.run(), one.confirmer.run()):
        yield one
