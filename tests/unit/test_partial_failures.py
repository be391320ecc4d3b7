"""Some events fail, or all by any history: each ends where it belongs, and the others go on."""

from __future__ import annotations

import asyncio
import random
import statistics

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inngest_outbox.relay.sends import BreakerState
from tests.support.delivery_model import BLOCKED, FAILING, HEALTHY, HUGE, MODES, REFUSED
from tests.support.delivery_world import World, check
from tests.support.memory_rows import MemoryRow
from tests.support.virtual_time import in_virtual_time, run_in_virtual_time

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize(
    ("kind", "place"),
    [("blocked-403", "first"), *((kind, "amid") for kind in ("blocked-429", FAILING, HUGE))],
)
@in_virtual_time
async def test_one_event_that_is_blocked_is_isolated_and_dies_and_the_others_go_on(
    kind: str, place: str
) -> None:
    random.seed(kind)
    world = World()
    rows: list[MemoryRow] = []
    async with world.running():
        for turn in range(720):
            rows += world.add(kind if turn == (0 if place == "first" else 60) else HEALTHY)
            await asyncio.sleep(1 / 12)
        healthy = [row for row in rows if row.kind == HEALTHY]
        await world.until(healthy, 5)
        assert world.relay.breaker.state is BreakerState.HEALTHY
        waits = [row.settled_at - row.born_at for row in healthy if row.settled_at]
        late = sum(wait > 1 for wait in waits)
        assert late <= 16 * 12, f"{late} of {len(waits)} waited longer than a second"
        assert statistics.median(waits) < 0.5
        while any(row.settled_at is None for row in rows):
            await world.until(world.add(HEALTHY), 5)
            assert asyncio.get_running_loop().time() < 120, world.relay.breaker
    check(rows)


@pytest.mark.parametrize(
    ("kind", "start"),
    [(REFUSED, "100 bad"), pytest.param(FAILING, "warm", marks=pytest.mark.slow)],
)
@in_virtual_time
async def test_with_four_in_five_events_bad_a_healthy_one_waits_seconds_and_the_bad_ones_die(
    kind: str, start: str
) -> None:
    random.seed(3)
    world = World(max_events=500)
    rows = world.add(*[kind] * 100) if start == "100 bad" else []
    async with world.running():
        for _ in range(30 * 20):
            rows += world.add(HEALTHY if random.random() < 0.2 else kind)
            await asyncio.sleep(1 / 30)
        ended = asyncio.get_running_loop().time()
        healthy = [row for row in rows if row.kind == HEALTHY]
        waits = [(row.settled_at or ended + 60) - row.born_at for row in healthy]
        assert statistics.median(waits) < 1
        assert sorted(waits)[int(len(waits) * 0.9)] < 5
        await world.until(healthy, 15)
        while any(row.settled_at is None for row in rows):
            await world.until(world.add(HEALTHY), 15)
            await asyncio.sleep(0.5)
            assert asyncio.get_running_loop().time() < 300, world.relay.breaker
    check(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "start"), [(FAILING, "100 bad"), (REFUSED, "nothing has passed")])
@in_virtual_time
async def test_with_97_of_100_events_bad_the_healthy_ones_are_found_and_go_on_passing(
    kind: str, start: str
) -> None:
    random.seed(start)
    world = World(max_events=500)
    if start == "100 bad":
        world.add(*[kind] * 100)
    healthy: list[MemoryRow] = []
    async with world.running():
        for turn in range(30 * 60):
            [row] = world.add(HEALTHY if random.random() < 0.03 else kind)
            if row.kind == HEALTHY and turn > 30 * 35:
                healthy.append(row)
            await asyncio.sleep(1 / 30)
        await world.until(healthy, 15)
        waits = sorted((row.settled_at or 0) - row.born_at for row in healthy)
        assert len(waits) > 10
        assert statistics.median(waits) < 2
        assert waits[int(len(waits) * 0.9)] < 5


@pytest.mark.parametrize("mode", ["too_large", "refusing"])
@in_virtual_time
async def test_what_is_said_of_every_event_kills_nobody(mode: str) -> None:
    random.seed(mode)
    world = World()
    rows: list[MemoryRow] = []
    async with world.running():
        rows += world.add(*[HEALTHY] * 100)
        await asyncio.sleep(1)
        world.inngest.mode = mode
        for _ in range(120):
            rows += world.add(*[HEALTHY] * 6)
            await asyncio.sleep(0.5)
        assert world.relay.breaker.state is BreakerState.BACKING_OFF
        world.inngest.mode = None
        await world.until(rows, 15)
    check(rows)


@pytest.mark.parametrize("share", [0.3])
def test_a_drain_goes_on_while_a_share_of_the_requests_fails(share: float) -> None:
    def drain(failing_share: float) -> float:
        took = 0.0

        async def main() -> None:
            nonlocal took
            world = World(max_events=500)
            world.inngest.failing_share = failing_share
            rows = world.add(*[HEALTHY] * 10_000)
            async with world.running():
                took = await world.until(rows, 300)
            assert max(row.attempts for row in rows) <= 2

        random.seed(share)
        run_in_virtual_time(main())
        return took

    assert drain(0.0) / drain(share) >= 0.5 * (1 - share)


@pytest.mark.parametrize("share", [0.3, 0.9])
@in_virtual_time
async def test_no_healthy_event_dies_of_chance(share: float) -> None:
    random.seed(share)
    world = World()
    world.inngest.failing_share = share
    rows: list[MemoryRow] = []
    async with world.running():
        for _ in range(30 * 30):
            rows += world.add(HEALTHY)
            await asyncio.sleep(1 / 30)
        world.inngest.failing_share = 0.0
        await world.until(rows, 30)
    check(rows)


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
