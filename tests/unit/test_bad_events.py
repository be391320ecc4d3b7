"""Bad events in virtual time: each dies alone and soon, and holds back nobody."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.support.delivery_model import FAILING, HANGING, HEALTHY, HUGE, REFUSED
from tests.support.delivery_world import World, check
from tests.support.virtual_time import in_virtual_time

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
async def test_a_bad_event_alone_in_the_outbox_holds_back_no_newcomer_for_long() -> None:
    random.seed(1)
    world = World()
    world.add(FAILING)
    async with world.running():
        await asyncio.sleep(120)
        await world.until(world.add(HEALTHY), 12)


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
    rows = world.add(*[REFUSED] * 200)
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
        await asyncio.sleep(1_200)
        assert {row.state for row in rows} <= {"pending", "delivering"}
        world.inngest.mode = None
        await world.until(rows, 30)
    check(rows)
