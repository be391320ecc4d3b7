"""Events that hang, in virtual time: healthy ones get through beside them."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.support.delivery_model import HANGING, HEALTHY, MemoryRow
from tests.support.delivery_world import World, check
from tests.support.virtual_time import in_virtual_time, now

pytestmark = pytest.mark.usefixtures("quiet")

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
