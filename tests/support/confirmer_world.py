"""A confirmer at work between rows in memory and an Inngest that stores late, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable

from service.observe.recorder import NullRecorder
from service.outbox.event import Event, Meta
from service.outbox.model import State
from service.relay.confirmer import Confirmer
from service.relay.report import ConfirmationReport
from service.relay.unconfirmed import Unconfirmed
from tests.support.memory_queue import MemoryConfirmations
from tests.support.memory_rows import IDS, MemoryRows
from tests.support.storing_inngest import StoringInngest
from tests.support.virtual_time import now


class World:
    """`faults` are those that the report was told of, each once in a row; None: all is well."""

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
        return {note["note"] for row in self.rows.by_seq.values() for note in row.notes}

    async def until(self, reached: Callable[[], bool], seconds: float) -> float:
        began = now()
        while not reached():
            waited = now() - began
            assert waited < seconds, (len(self.delivered), len(self.sent))
            await asyncio.sleep(0.05)
        return now() - began


@contextlib.asynccontextmanager
async def world(rate: float) -> AsyncIterator[World]:
    one = World(rate)
    tasks = [asyncio.create_task(one.inngest.run()), asyncio.create_task(one.confirmer.run())]
    try:
        yield one
    finally:
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in done), done
