"""The relay and the confirmer together, beside an Inngest that stores late and loses, for hours."""

from __future__ import annotations

import asyncio
import random

import pytest

from service.inngest.send_result import SendResult
from tests.support.confirmed_world import ConfirmedWorld
from tests.support.delivery_model import HEALTHY, REFUSED
from tests.support.memory_rows import MemoryRow
from tests.support.virtual_time import in_virtual_time


def check(world: ConfirmedWorld, rows: list[MemoryRow]) -> None:
    """What is delivered is held, what is held is delivered, and bad events are dead."""
    for row in rows:
        if row.kind == HEALTHY:
            assert row.state == "delivered", row
            assert row.seq in world.store.stored, row
        else:
            assert row.state == "dead", row


@in_virtual_time
async def test_a_drain_goes_at_inngests_storing_rate():
    world = ConfirmedWorld(rate=200)
    rows = world.add(*[HEALTHY] * 4_000)
    async with world.running():
        seconds = await world.until(rows, 30)
    assert seconds < 4_000 / 200 / 0.9
    assert {row.sends for row in rows} == {1}
    check(world, rows)


@in_virtual_time
async def test_the_window_is_never_passed_by_more_than_what_was_in_flight():
    world = ConfirmedWorld(rate=100, unconfirmed_max=200)
    rows = world.add(*[HEALTHY] * 1_500)
    async with world.running():
        await world.until(rows, 60)
    assert world.most_unconfirmed <= 200 + 50
    check(world, rows)


@pytest.mark.parametrize("seed", range(2))
@in_virtual_time
async def test_stops_of_any_length_at_any_moment_lose_nothing(seed):
    dice = random.Random(seed)
    world = ConfirmedWorld(rate=dice.choice([50, 200, 1_000]))
    rows = world.add(*[HEALTHY] * 500)
    async with world.running():
        for _ in range(12):
            await asyncio.sleep(dice.uniform(0.05, 6))
            rows += world.add(*[HEALTHY] * 100, *[REFUSED] * dice.choice([0, 0, 1]))
            world.stop_inngest()
            await asyncio.sleep(dice.choice([0.05, 1, 5, 40]))
            world.start_inngest()
        await world.until(rows, 1_000)
    check(world, rows)


@in_virtual_time
async def test_fresh_events_get_through_beside_a_backlog_that_fills_the_window():
    world = ConfirmedWorld(rate=100, unconfirmed_max=200)
    backlog = world.add(*[HEALTHY] * 3_000)
    async with world.running():
        await asyncio.sleep(5)
        [fresh] = world.add(HEALTHY)
        seconds = await world.until([fresh], 10)
        assert seconds < 5
        await world.until(backlog, 60)


@in_virtual_time
async def test_an_inngest_that_ignores_seeds_is_believed_at_its_answer():
    world = ConfirmedWorld(rate=100)
    world.inngest.honours_seeds = False
    rows = world.add(*[HEALTHY] * 300)
    async with world.running():
        await world.until(rows, 5)
        await asyncio.sleep(600)
    assert set(world.inngest.times.values()) == {1}
    assert world.store.questions == 0


@in_virtual_time
async def test_an_event_that_inngest_took_and_lost_has_all_its_tries_again():
    world = ConfirmedWorld(rate=0)
    refusals, answer = 2, world.inngest._answer

    async def refuse(*given):
        nonlocal refusals
        refusals -= 1
        if refusals < 0:
            return await answer(*given)
        return SendResult(400, ("",), "publish failed")

    world.inngest._answer = refuse
    rows = world.add(HEALTHY)
    async with world.running():
        await asyncio.sleep(10)
        assert (rows[0].state, refusals) == ("sent", -1)
        world.stop_inngest()
        await asyncio.sleep(10)
        refusals, world.store.rate = 1, 1_000
        world.start_inngest()
        await world.until(rows, 60)
    check(world, rows)


@in_virtual_time
async def test_an_environment_that_inngest_refuses_stops_alone_at_its_bound_and_is_announced():
    world = ConfirmedWorld(rate=1_000, unconfirmed_max=500)
    world.outbox.environments = (None, "branch")
    world.store.refused = {"branch"}
    rows = world.add(*[HEALTHY] * 1_000)
    own = [row for row in rows if row.event.meta.environment is None]
    async with world.running():
        await world.until(own, 60)
        await asyncio.sleep(20)
        sent = await world.outbox.confirmations.count_sent()
        assert 50 <= sent < 200
        record = await world.outbox.delivery.load()
        assert record.confirmation == "failing (refuses branch)"
        world.store.refused = set()
        await world.until(rows, 120)
        await asyncio.sleep(10)
        record = await world.outbox.delivery.load()
        assert record.confirmation == "on (self-hosted)"
    check(world, rows)
