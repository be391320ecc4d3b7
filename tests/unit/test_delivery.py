"""The relay over a model of its neighbours, in virtual time: hours of faults in milliseconds."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.delivery_model import HEALTHY
from tests.support.delivery_world import World, check
from tests.support.virtual_time import in_virtual_time

pytestmark = pytest.mark.usefixtures("quiet")


@in_virtual_time
async def test_a_relay_that_waits_for_rows_or_for_inngest_beats_all_the_time() -> None:
    world = World()
    async with world.running():
        await asyncio.sleep(10)
        assert world.beats >= 10
        world.inngest.mode = "away"
        world.add(HEALTHY)
        await asyncio.sleep(5)
        world.beats = 0
        await asyncio.sleep(10)
    assert world.beats >= 10


@in_virtual_time
async def test_a_store_that_fails_is_asked_again_and_a_stop_meanwhile_ends_the_relay() -> None:
    world = World()
    world.queue.failing = True
    running = asyncio.create_task(world.relay.run())
    rows = world.add(HEALTHY)
    await asyncio.sleep(0.3)
    world.queue.failing = False
    await world.until(rows, 1)
    world.queue.failing = True
    world.add(HEALTHY)
    await asyncio.sleep(0.1)
    await world.relay.stop()
    await asyncio.wait_for(running, 1)


@in_virtual_time
async def test_batches_shrink_until_they_are_not_too_large_and_no_event_dies() -> None:
    world = World(max_events=500, max_bytes=200)
    rows = world.add(*[HEALTHY] * 1000)
    async with world.running():
        await world.until(rows, 60)
    check(rows)


@in_virtual_time
async def test_a_paused_delivery_sends_nothing_until_it_is_resumed() -> None:
    world = World()
    await world.outbox.repairs.set_paused(paused=True, actor="ada")
    rows = world.add(*[HEALTHY] * 10)
    async with world.running():
        await asyncio.sleep(60)
        assert not world.inngest.sent_at
        await world.outbox.repairs.set_paused(paused=False, actor="ada")
        await world.until(rows, 3)
