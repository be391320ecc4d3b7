"""Any history of faults, chance, pauses and restarts: each event ends where it belongs."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.relay.sends import BreakerState
from tests.support.delivery_model import BLOCKED, FAILING, HEALTHY, HUGE, MODES, REFUSED
from tests.support.delivery_world import World, check
from tests.support.memory_rows import MemoryRow
from tests.support.virtual_time import in_virtual_time

pytestmark = pytest.mark.usefixtures("quiet")

PAUSE, RESTART, CHANCE = "pause", "restart", "half of the requests fail"
STEPS = st.tuples(
    st.sampled_from((*MODES, "too_large", PAUSE, RESTART, CHANCE, None)),
    st.floats(0.01, 30),
)
KINDS = st.sampled_from([HEALTHY] * 20 + [REFUSED, FAILING, HUGE, *BLOCKED])


class History:
    """Plays steps against a world; remembers every event that was ever there."""

    def __init__(self, kinds: list[str], senders: int) -> None:
        self.world = World(senders=senders)
        self.world.outbox.environments = (*[None] * 18, "branch", "other")
        self.rows = self.world.add(*kinds)

    async def play(self, steps: list[tuple[str | None, float]]) -> None:
        """Run the steps, each process of the history from one restart to the next."""
        while steps:
            async with self.world.restarted():
                while steps:
                    step, seconds = steps.pop(0)
                    if step == RESTART:
                        break
                    await self._step(step, seconds)
        async with self.world.restarted():
            await self._end()

    async def _step(self, step: str | None, seconds: float) -> None:
        inngest, outbox = self.world.inngest, self.world.outbox
        inngest.mode = step if step not in {PAUSE, CHANCE} else None
        inngest.failing_share = 0.5 if step == CHANCE else 0.0
        await outbox.repairs.set_paused(paused=step == PAUSE, actor="ada")
        await asyncio.sleep(seconds)
        self.rows += self.world.add(HEALTHY)

    async def _end(self) -> None:
        """All faults are over: everything is settled while a few events come in."""
        await self._step(None, 0.1)
        healthy = [row for row in self.rows if row.kind == HEALTHY]
        await self.world.until(healthy, 120)
        until = asyncio.get_running_loop().time() + 1200
        while any(row.settled_at is None for row in self.rows):
            await self._add_healthy()
            assert asyncio.get_running_loop().time() < until, self.world.relay.breaker
        await asyncio.sleep(10)
        assert self.world.relay.breaker.state is BreakerState.HEALTHY

    async def _add_healthy(self) -> None:
        rows: list[MemoryRow] = self.world.add(HEALTHY)
        self.rows += rows
        await self.world.until(rows, 15)


@settings(max_examples=settings().max_examples // 4, database=None)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=8),
    kinds=st.lists(KINDS, min_size=1, max_size=80),
    senders=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 1 << 30),
)
@example(
    steps=[
        *(("away", 0.25), ("away", 0.01), (PAUSE, 29.0), ("too_large", 29.0)),
        *(("away", 1.9), ("away", 29.158483903862496), ("away", 18.883649271110315)),
        ("away", 1.9),
    ],
    kinds=["blocked-302"],
    senders=1,
    seed=0,
)
@in_virtual_time
async def test_any_history_ends_healthy_with_each_event_where_it_belongs(
    steps: list[tuple[str | None, float]], kinds: list[str], senders: int, seed: int
) -> None:
    random.seed(seed)
    history = History(kinds, senders)
    await history.play(list(steps))
    too_large = any(step == "too_large" for step, _ in steps)
    check(history.rows, may_be_too_large=too_large)
    assert history.world.inngest.most_under_way <= 2 * senders
    assert not any(row.claim for row in history.rows)
