"""Delivery after a power cut: the relay and the confirmer at work on what the disk holds.

Inngest holds what it had stored by then. What it had taken and not stored it stores or loses.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support.beside import beside
from tests.support.power_cuts.answers import Answers
from tests.support.power_cuts.small_files import LIMITS
from tests.support.simulation.delivering import delivering
from tests.support.simulation.inline_world import Clocks
from tests.support.simulation.simulated_inngest import SimulatedInngest

RATE = 200.0
PATIENCE_SECONDS = 600.0
MAX_UNCONFIRMED = 500


class Redelivery:
    """Delivers to an Inngest that knows what it knew at the moment of the cut."""

    def __init__(self, chance: random.Random, clocks: Clocks) -> None:
        self._chance = chance
        self._clocks = clocks

    async def faults(self, path: Path, answers: Answers) -> list[str]:
        """What is wrong with the delivery of the outbox at `path`."""
        inngest = _Inngest(self._chance, self._clocks, answers)
        async with (
            beside(inngest.run()),
            open_sqlite_outbox(path, **LIMITS) as outbox,
            delivering(outbox, inngest, MAX_UNCONFIRMED),
        ):
            until = self._clocks.monotonic() + PATIENCE_SECONDS
            while outbox.undelivered or await outbox.confirmations.count_sent():
                if self._clocks.monotonic() > until:
                    return ["an event is never delivered"]
                await asyncio.sleep(1)
            dead = await outbox.inspector.rows(Filter(state=State.DEAD))
        return list(_wrong(inngest, answers, dead))


class _Inngest(SimulatedInngest):
    """Notes under which ULIDs it gets an event."""

    def __init__(self, chance: random.Random, clocks: Clocks, answers: Answers) -> None:
        super().__init__(chance, clocks, rate=RATE)
        for event_id, ulid in answers.held.items():
            self._store(ulid, event_id)
        if chance.random() < 0.5:
            self._queue.extend((ulid, one) for one, ulid in answers.took.items())
        self.ulids = {event_id: {ulid} for event_id, ulid in answers.took.items()}
        self.taken = list[str]()

    def _accept(self, ulid: str, event_id: str) -> None:
        super()._accept(ulid, event_id)
        self.ulids.setdefault(event_id, set()).add(ulid)
        self.taken.append(event_id)


def _wrong(inngest: _Inngest, answers: Answers, dead: list[Row]) -> Iterator[str]:
    if answers.ids - set(inngest.stored.values()):
        yield "an answered event never reaches Inngest"
    if dead:
        yield "a good event is dead"
    if any(len(ulids) > 1 for ulids in inngest.ulids.values()):
        yield "an event is sent under two ids"
    if answers.settled.intersection(inngest.taken):
        yield "an event is sent again that was on disk as delivered"
    if any(len(runs) > 1 for runs in inngest.runs.values()):
        yield "a function ran twice"
