"""Events that are bad or hang, in virtual time: each dies alone and soon, and holds back nobody."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.support.delivery_model import FAILING, HANGING, HEALTHY, HUGE, REFUSED, MemoryRow
from tests.support.delivery_world import World, check
from tests.support.virtual_time import in_virtual_time, now

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize(
    ("kind", "senders", "bad"),
    [(REFUSED, 1, 20), (REFUSED, 4, 1), (FAILING, 1, 1), (FAILING, 4, 20), (HUGE, 4, 20)],
)
@in_virtual_time
async def test_bad_events_among_thousands_die_alone(kind: str, senders: int, bad: int) -> None:
    random.seed(f"{kind}{senders}{bad}")
    world = World(senders=senders, max_events=500)
    kinds = [HEALTHY] * (1500 - bad) + [kind] * bad
    random.shuffle(kinds)
    rows = world.add(*kinds)
    async with world.running():
        healthy = [row for row in rows if row.kind == HEALTHY]
        await world.until(healthy, 60)
        while any(row.settled_at is None for row in rows):
            await world.until(world.add(HEALTHY), 10)
            assert asyncio.get_running_loop().time() < 600, world.relay.breaker
    check(rows)
    for row in rows:
        if row.kind != HEALTHY:
            assert world.inngest.sent_alone[row.seq] <= 25
        else:
            assert row.attempts <= 2
    assert max(world.inngest.times.values()) <= 1 or kind == FAILING


@pytest.mark.parametrize(("kind", "senders"), [(REFUSED, 4), (FAILING, 1), (HANGING, 4)])
@in_virtual_time
async def test_a_bad_event_that_is_the_newest_of_a_backlog_holds_back_nobody(
    kind: str, senders: int
) -> None:
    random.seed(1)
    world = World(senders=senders, max_events=500)
    rows = world.add(*[HEALTHY] * 2000, kind)
    async with world.running():
        await world.until(rows[:-1], 120)


@pytest.mark.parametrize("senders", [1, 4])
@in_virtual_time
async def test_a_long_run_of_refused_events_holds_back_nobody(senders: int) -> None:
    random.seed(1)
    world = World(senders=senders, max_events=500)
    rows = world.add(*[HEALTHY] * 100, *[REFUSED] * 300, *[HEALTHY] * 100)
    async with world.running():
        await world.until([row for row in rows if row.kind == HEALTHY], 10)
        rows += world.add(HEALTHY)
        await world.until(rows[-1:], 5)
        while any(row.settled_at is None for row in rows):
            await asyncio.sleep(1)
            await world.until(world.add(HEALTHY), 5)
            assert asyncio.get_running_loop().time() < 120, world.relay.breaker
    check(rows)


@pytest.mark.parametrize(("kind", "senders"), [(REFUSED, 4), (FAILING, 4), (HANGING, 1)])
@in_virtual_time
async def test_bad_events_do_not_delay_a_trickle_of_good_ones(kind: str, senders: int) -> None:
    random.seed(1)
    world = World(senders=senders)
    bad = world.add(*[kind] * 5)
    waits = []
    async with world.running():
        for _ in range(300):
            [row] = world.add(HEALTHY)
            waits.append(await world.until([row], 45))
            await asyncio.sleep(2)
        assert all(row.state == "dead" for row in bad), (bad, world.relay.breaker)
    waits.sort()
    assert waits[len(waits) // 2] <= 0.2
    assert waits[int(len(waits) * 0.95)] <= 6


@in_virtual_time
async def test_an_isolated_event_asks_again_when_nothing_else_comes() -> None:
    world = World()
    rows = world.add(REFUSED)
    async with world.running():
        took = await world.until(rows, 10)
    assert 4 <= took <= 6
    assert world.inngest.sent_alone[rows[0].seq] == 3
    assert rows[0].attempts == 3


@in_virtual_time
async def test_a_backlog_of_refused_events_ends_once_inngest_answers_an_empty_request() -> None:
    random.seed(1)
    world = World()
    rows = world.add(*[REFUSED] * 100)
    async with world.running():
        await world.until(rows, 600)
    check(rows)
    assert max(world.inngest.sent_alone.values()) < 400


@in_virtual_time
async def test_nobody_dies_while_inngest_refuses_everything_and_an_empty_request() -> None:
    random.seed(1)
    world = World()
    rows = world.add(*[HEALTHY] * 50)
    world.inngest.mode = "refusing"
    async with world.running():
        await asyncio.sleep(600)
        assert {row.state for row in rows} <= {"pending", "delivering"}
        world.inngest.mode = None
        await world.until(rows, 30)
    check(rows)


TIMEOUT = 3.0
SIDE_BY_SIDE = 32 + 4  # requests with fresh events, and with isolated ones


async def waits_of(world: World, rows: list[MemoryRow], added_at: list[float]) -> list[float]:
    """The seconds that each healthy row waited for its delivery, ascending."""
    healthy = [(row, at) for row, at in zip(rows, added_at, strict=True) if row.kind == HEALTHY]
    await world.until([row for row, _ in healthy], 120)
    return sorted((row.settled_at or 0.0) - at for row, at in healthy)


def kinds(healthy: int, hanging: int) -> list[str]:
    found = [HEALTHY] * healthy + [HANGING] * hanging
    random.shuffle(found)
    return found


def hanging_world() -> World:
    world = World(senders=4, max_events=500)
    world.inngest.hang_seconds = TIMEOUT
    return world


@pytest.mark.parametrize(
    ("healthy", "hanging", "timeouts"), [(200, 2, 2), (101, 101, 2), (8, 259, 10)]
)
@pytest.mark.parametrize("seed", range(2))
@in_virtual_time
async def test_healthy_events_of_a_stream_wait_for_few_timeouts(
    healthy: int, hanging: int, timeouts: int, seed: int
) -> None:
    random.seed(seed)
    world, rows, added_at = hanging_world(), list[MemoryRow](), list[float]()
    async with world.running():
        await world.until(world.add(HEALTHY), 1)
        for kind in kinds(healthy, hanging):
            rows += world.add(kind)
            added_at.append(now())
            await asyncio.sleep(0.05)
        waits = await waits_of(world, rows, added_at)
    assert waits[int(len(waits) * 0.95)] <= timeouts * TIMEOUT
    assert world.inngest.most_under_way <= SIDE_BY_SIDE + 4


@in_virtual_time
async def test_a_backlog_in_which_half_hangs_goes_as_fast_as_32_requests_allow() -> None:
    random.seed(1)
    world = hanging_world()
    async with world.running():
        await world.until(world.add(HEALTHY), 1)
        rows = world.add(*kinds(101, 101))
        waits = await waits_of(world, rows, [now()] * len(rows))
    assert waits[int(len(waits) * 0.95)] <= (1 + 101 / 32 + 1) * TIMEOUT
    assert world.inngest.most_under_way <= SIDE_BY_SIDE


@in_virtual_time
async def test_events_that_hang_die_and_batches_grow_again() -> None:
    random.seed(1)
    world = hanging_world()
    rows = world.add(*kinds(20, 5))
    async with world.running():
        while any(row.settled_at is None for row in rows):
            await world.until(world.add(HEALTHY), 10)
            await asyncio.sleep(0.5)
            assert now() < 600, world.relay.breaker
        check(rows)
        await asyncio.sleep(60)
        await world.until(world.add(HEALTHY), 1)
        world.inngest.sent_at.clear()
        await world.until(world.add(*[HEALTHY] * 400), 1)
        assert len(world.inngest.sent_at) < 10


@in_virtual_time
async def test_an_inngest_that_hangs_for_everything_is_in_trouble_and_uses_up_no_event() -> None:
    random.seed(1)
    world = World(senders=4, max_events=500)
    async with world.running():
        await world.until(world.add(HEALTHY), 1)
        rows = world.add(*[HEALTHY] * 500)
        world.inngest.mode = "hang"
        await asyncio.sleep(60)
        assert world.relay.breaker.state.waits
        world.inngest.sent_at.clear()
        await asyncio.sleep(600)
        assert len(world.inngest.sent_at) < 400
        world.inngest.mode = None
        await world.until(rows, 30)
    assert {row.attempts for row in rows} <= {0, 1}
