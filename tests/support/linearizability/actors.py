"""Operators who look at an outbox and change it, beside others."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from inngest_outbox.outbox.figures import Stats
from inngest_outbox.outbox.model import Filter, Named, Row, State
from inngest_outbox.outbox.ports import Inspector, Repairs
from tests.support.linearizability.record import Recorder

LIMITS = (1, 3, 10, 500)
_FEW = 3


class Actor:
    """Somebody who acts at random until cancelled. `known` are ids that may be asked about."""

    def __init__(self, chance: random.Random, recorder: Recorder, known: deque[str]) -> None:
        self.chance = chance
        self.record = recorder.call
        self.known = known

    def acts(self) -> dict[Callable[[], Awaitable[object]], float]:
        """What it does, with how often."""
        raise NotImplementedError

    async def run(self) -> None:
        acts = self.acts()
        while True:
            [act] = self.chance.choices(list(acts), list(acts.values()))
            await act()
            await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.002, 0.01)))

    def some(self) -> list[str]:
        """A few of the ids."""
        few = self.chance.randrange(1, _FEW + 1)
        return self.chance.sample(list(self.known), min(few, len(self.known)))

    def one(self) -> str | None:
        """One of the ids, None when none is known."""
        return self.chance.choice(self.known) if self.known else None


class Looker(Actor):
    """Looks as operators do."""

    def __init__(
        self,
        chance: random.Random,
        recorder: Recorder,
        known: deque[str],
        inspector: Inspector,
    ) -> None:
        super().__init__(chance, recorder, known)
        self._inspector = inspector

    def acts(self) -> dict[Callable[[], Awaitable[object]], float]:
        return {self.stats: 4, self.rows: 4, self.show: 2, self.count: 1, self.paused: 1}

    async def everything(self) -> None:
        """The figures, and all rows."""
        await self.stats()
        rows, asked = self._inspector.rows, {"state": None, "limit": 100_000}
        await self.record("list", asked, lambda: rows(Filter(limit=100_000)), _rows)

    async def stats(self) -> None:
        await self.record("stats", None, self._inspector.stats, _counts)

    async def rows(self) -> None:
        asked, wanted = self._asked()
        rows = await self.record("list", asked, lambda: self._inspector.rows(wanted), _rows)
        self.known.extend(row.id for row in (rows or [])[:_FEW] if row.id not in self.known)

    async def show(self) -> None:
        if event_id := self.one():
            wanted, rows = Filter(ids=(event_id,), limit=1), self._inspector.rows
            await self.record(
                "show",
                event_id,
                lambda: rows(wanted),
                lambda found: found[0].state if found else None,
            )

    async def count(self) -> None:
        asked, wanted = self._asked()
        await self.record("count", asked, lambda: self._inspector.count(wanted), int)

    async def paused(self) -> None:
        load = self._inspector.load_delivery
        await self.record("paused", None, load, lambda record: record.paused_by is not None)

    def _asked(self) -> tuple[dict[str, Any], Filter]:
        """A drawn question, as the record has it and as the inspector takes it."""
        state = self.chance.choice((None, *State))
        limit = self.chance.choice(LIMITS)
        asked = {"state": state and state.value, "limit": limit}
        return asked, Filter(state=state, limit=limit)


class Operator(Looker):
    """Looks, and changes rows."""

    def __init__(
        self,
        chance: random.Random,
        recorder: Recorder,
        known: deque[str],
        inspector: Inspector,
        repairs: Repairs,
    ) -> None:
        super().__init__(chance, recorder, known, inspector)
        self._repairs = repairs

    def acts(self) -> dict[Callable[[], Awaitable[object]], float]:
        changes = {self.replay: 2.0, self.discard: 1.5, self.purge: 0.5, self.pause: 0.7}
        return {**super().acts(), **changes}

    async def replay(self) -> None:
        ids, change = self.some(), self._repairs.replay
        await self.record("replay", ids, lambda: change(_those(ids), actor="kim"), list)

    async def discard(self) -> None:
        ids, change = self.some(), self._repairs.discard
        await self.record("discard", ids, lambda: change(_those(ids), actor="kim"), list)

    async def purge(self) -> None:
        """Its pages are recorded where they are removed."""
        change = self._repairs.purge
        await self.record("purge", 0, lambda: change(older_than_seconds=-1, actor="kim"), int)

    async def pause(self) -> None:
        paused, change = self.chance.random() < 0.5, self._repairs.set_paused
        await self.record(
            "pause", paused, lambda: change(paused=paused, actor="kim"), lambda _: None
        )


def _those(ids: list[str]) -> Named:
    return Named(tuple(ids))


def _counts(stats: Stats) -> dict[str, Any]:
    counts = {state.value: getattr(stats, state.value) for state in State}
    return {**counts, "paused": bool(stats.delivery and stats.delivery.paused_by is not None)}


def _rows(rows: list[Row]) -> list[tuple[str, str, int]]:
    return [(row.id, row.state.value, row.seq) for row in rows]
