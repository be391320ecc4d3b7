"""Outages of Inngest in virtual time: nobody ages, it is asked seldom, all is delivered after."""

from __future__ import annotations

import asyncio
import random

import pytest

from service.outbox.model import DeliveryRecord
from service.relay.sends import BreakerState
from tests.support.delivery_model import HEALTHY, MODES
from tests.support.delivery_world import World, check
from tests.support.virtual_time import in_virtual_time

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize(
    ("mode", "senders"), [*((mode, 4) for mode in MODES), ("hang", 1), ("failing", 1)]
)
@in_virtual_time
async def test_an_outage_ages_nobody_and_all_is_delivered_within_15_s_of_its_end(
    mode: str, senders: int
) -> None:
    random.seed(mode)
    world = World(senders=senders)
    before = world.add(*[HEALTHY] * 20)
    async with world.running():
        await world.until(before, 1)
        world.inngest.mode = mode
        rows = world.add(*[HEALTHY] * 300)
        for _ in range(60):
            await asyncio.sleep(1)
            rows += world.add(HEALTHY)
        world.inngest.mode = None
        await world.until(rows, 15)
    assert {row.state for row in rows} == {"delivered"}
    assert {row.attempts for row in rows} <= {1, 2}
    assert world.relay.breaker.state is BreakerState.HEALTHY


@pytest.mark.parametrize("mode", ["away", "failing", "refusing"])
@in_virtual_time
async def test_a_closed_breaker_asks_seldom_and_with_one_event(mode: str) -> None:
    random.seed(mode)
    world = World()
    world.inngest.mode = mode
    world.add(*[HEALTHY] * 500)
    async with world.running():
        await asyncio.sleep(20)
        asked = len(world.inngest.sent_at)
        await asyncio.sleep(600)
    later = world.inngest.sent_at[asked:]
    assert {events for _, events in later} <= {0, 1}  # a probe may be empty
    assert 600 / 5 - 2 <= len(later) <= 600


@in_virtual_time
async def test_isolated_events_of_a_long_outage_are_delivered_soon_after_it() -> None:
    random.seed(1)
    world = World()
    world.inngest.mode = "failing"
    rows = world.add(*[HEALTHY] * 1000)
    async with world.running():
        for _ in range(600):
            await asyncio.sleep(1)
            rows += world.add(HEALTHY)
        world.inngest.mode = None
        await world.until(rows, 15)
    check(rows)


@in_virtual_time
async def test_retry_after_is_honoured_also_from_a_late_answer() -> None:
    world = World(max_events=1)
    world.inngest.mode = "busy"
    rows = world.add(*[HEALTHY] * 4)
    async with world.running():
        await asyncio.sleep(0.5)
        first = len(world.inngest.sent_at)
        await asyncio.sleep(2.2)
        assert len(world.inngest.sent_at) == first
        world.inngest.mode = None
        await world.until(rows, 3)


@in_virtual_time
async def test_a_wrong_key_is_tried_every_five_seconds() -> None:
    world = World()
    world.inngest.mode = "no_key"
    rows = world.add(*[HEALTHY] * 10)
    async with world.running():
        await asyncio.sleep(60)
        assert world.relay.breaker.state is BreakerState.MISCONFIGURED
        assert 11 <= len(world.inngest.sent_at) <= 13
        world.inngest.mode = None
        await world.until(rows, 6)
    assert {row.attempts for row in rows} == {1}


@in_virtual_time
async def test_a_closed_breaker_is_taken_up_after_a_restart_whatever_the_clock_did() -> None:
    world = World()
    await world.outbox.delivery.save(DeliveryRecord("backing_off", "500", 1, 4, 5 * 3600.0, 0))
    rows = world.add(*[HEALTHY] * 10)
    async with world.running():
        await asyncio.sleep(1)
        assert not world.inngest.sent_at
        await world.until(rows, 10)
        assert world.inngest.sent_at[0][1] == 1
