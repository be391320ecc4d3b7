"""Delivery with nothing to send becomes healthy by itself, and says what it can't know."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from service.relay.sends import BreakerState
from tests.support.delivery_model import BLOCKED, FAILING, HEALTHY, HUGE
from tests.support.delivery_world import World, check
from tests.support.virtual_time import in_virtual_time

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize("mode", ["failing", "no_key", "busy"])
@in_virtual_time
async def test_trouble_ends_by_itself_when_the_only_waiting_event_is_discarded(mode: str) -> None:
    random.seed(mode)
    world = World()
    world.inngest.mode = mode
    rows = world.add(HEALTHY)
    async with world.running():
        await asyncio.sleep(30)
        assert world.relay.breaker.state.waits
        await world.discard(rows)
        await asyncio.sleep(30)
        assert world.relay.breaker.state.waits, "Inngest is still in trouble"
        world.inngest.mode = None
        await asyncio.sleep(15)
        assert world.relay.breaker.state is BreakerState.HEALTHY
        await world.until(world.add(HEALTHY), 1)


@in_virtual_time
async def test_recovery_ends_by_itself_when_nothing_more_is_due() -> None:
    random.seed(1)
    world = World()
    world.inngest.mode = "failing"
    rows = world.add(HEALTHY)
    async with world.running():
        await asyncio.sleep(10)
        world.inngest.mode = None
        await world.until(rows, 6)
        assert world.relay.breaker.state is BreakerState.RECOVERING
        await asyncio.sleep(2)
        assert world.relay.breaker.state is BreakerState.HEALTHY


@in_virtual_time
async def test_an_idle_healthy_delivery_asks_nothing() -> None:
    world = World()
    async with world.running():
        await asyncio.sleep(3600)
    assert not world.inngest.sent_at


@in_virtual_time
async def test_an_event_that_always_fails_alone_is_told_and_not_held_against_it() -> None:
    random.seed(1)
    world = World()
    [row] = world.add(FAILING)
    async with world.running():
        await asyncio.sleep(120)
        assert (row.state, row.attempts) == ("pending", 0)
        assert world.recorder.shown["lone_event_fails"] == 1
        asked = len(world.inngest.sent_at)
        await asyncio.sleep(600)
        assert len(world.inngest.sent_at) - asked <= 600
        await world.until(world.add(HEALTHY), 6)
        assert world.recorder.shown["lone_event_fails"] == 0


@in_virtual_time
async def test_an_event_that_failed_alone_and_was_discarded_is_told_no_longer() -> None:
    random.seed(1)
    world = World()
    rows = world.add(FAILING)
    async with world.running():
        await asyncio.sleep(120)
        assert world.recorder.shown["lone_event_fails"] == 1
        await world.discard(rows)
        await asyncio.sleep(10)
        assert world.recorder.shown["lone_event_fails"] == 0
        assert world.relay.breaker.state is BreakerState.HEALTHY


@in_virtual_time
async def test_an_outage_that_one_event_waits_for_is_not_told_as_the_events_fault() -> None:
    random.seed(1)
    world = World()
    world.inngest.mode = "failing"
    world.add(HEALTHY)
    async with world.running():
        await asyncio.sleep(300)
    assert not world.recorder.shown.get("lone_event_fails")


@in_virtual_time
async def test_one_event_alone_that_is_too_large_dies_when_an_empty_request_passes() -> None:
    random.seed(1)
    world = World()
    rows = world.add(HUGE)
    async with world.running():
        await world.until(rows, 5)
    check(rows)
    assert rows[0].attempts == 1


@pytest.mark.parametrize(("passing", "seconds"), [(True, 5), (False, 15)])
@in_virtual_time
async def test_during_a_long_retry_after_one_event_asks_at_a_slow_pace(
    passing: bool,  # noqa: FBT001
    seconds: float,
) -> None:
    random.seed(1)
    world = World()
    async with world.running():
        if passing:
            await world.until(world.add(HEALTHY), 1)
        await asyncio.sleep(0.1)
        busy = replace(BLOCKED["blocked-429"], retry_after_seconds=3600.0)
        world.inngest.answer = busy
        rows = world.add(*[HEALTHY] * 20)
        await asyncio.sleep(0.1)
        asked = len(world.inngest.sent_at)
        await asyncio.sleep(seconds - 0.5)
        assert len(world.inngest.sent_at) == asked
        await asyncio.sleep(1)
        assert len(world.inngest.sent_at) == asked + 1
        await asyncio.sleep(280)
        assert len(world.inngest.sent_at) <= asked + 1 + 280 / 15
        world.inngest.answer = None
        await world.until(rows, 17)
    assert {row.attempts for row in rows} == {1}


@in_virtual_time
async def test_an_operator_ends_the_wait_of_a_retry_after() -> None:
    random.seed(1)
    world = World()
    world.inngest.answer = BLOCKED["blocked-429"]
    rows = world.add(*[HEALTHY] * 5)
    async with world.running():
        await asyncio.sleep(2)
        world.inngest.answer = None
        await world.outbox.repairs.set_paused(paused=False, actor="ada", ask_now=True)
        await world.until(rows, 2)
