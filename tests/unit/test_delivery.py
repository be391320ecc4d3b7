"""The relay over a model of its neighbours, in virtual time: hours of faults in milliseconds."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.outbox.model import DeliveryRecord
from tests.support.delivery_model import FAILING, HEALTHY, HUGE, MODES, REFUSED
from tests.support.delivery_world import World, check
from tests.support.virtual_time import run_in_virtual_time

pytestmark = pytest.mark.usefixtures("quiet")


def test_a_relay_that_waits_for_rows_or_for_inngest_beats_all_the_time() -> None:
    async def main() -> None:
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

    run_in_virtual_time(main())


def test_a_store_that_fails_is_asked_again_and_a_stop_meanwhile_ends_the_relay() -> None:
    async def main() -> None:
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

    run_in_virtual_time(main())


def test_a_batch_is_delivered_at_the_first_attempt() -> None:
    async def main() -> None:
        world = World()
        rows = world.add(*[HEALTHY] * 200)
        async with world.running():
            await world.until(rows, 1)
        assert {(row.state, row.attempts, row.sends) for row in rows} == {("delivered", 1, 1)}

    run_in_virtual_time(main())


def test_batches_shrink_until_they_are_not_too_large_and_no_event_dies() -> None:
    async def main() -> None:
        world = World(max_events=500, max_bytes=200)
        rows = world.add(*[HEALTHY] * 1000)
        async with world.running():
            await world.until(rows, 60)
        check(rows)

    run_in_virtual_time(main())


def test_a_paused_delivery_sends_nothing_until_it_is_resumed() -> None:
    async def main() -> None:
        world = World()
        paused = DeliveryRecord("healthy", "", 50, 0, 0.0, 0, paused_by="ada")
        world.queue.record = paused
        rows = world.add(*[HEALTHY] * 10)
        async with world.running():
            await asyncio.sleep(60)
            assert not world.inngest.sent_at
            world.queue.record = DeliveryRecord("healthy", "", 50, 0, 0.0, 0)
            await world.until(rows, 3)

    run_in_virtual_time(main())


SCRIPTS = st.lists(
    st.tuples(st.sampled_from((*MODES, None)), st.floats(0.01, 30)), min_size=1, max_size=8
)


@settings(max_examples=15, deadline=None)
@given(
    script=SCRIPTS,
    kinds=st.lists(
        st.sampled_from([HEALTHY] * 20 + [REFUSED, FAILING, HUGE]), min_size=1, max_size=80
    ),
    senders=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 1 << 30),
)
def test_any_sequence_of_faults_ends_with_each_event_where_it_belongs(
    script: list[tuple[str | None, float]], kinds: list[str], senders: int, seed: int
) -> None:
    async def main() -> None:
        world = World(senders=senders)
        rows = world.add(*kinds)
        async with world.running():
            for mode, seconds in script:
                world.inngest.mode = mode
                await asyncio.sleep(seconds)
                rows += world.add(HEALTHY)
            world.inngest.mode = None
            await world.until([row for row in rows if row.kind == HEALTHY], 120)
            while any(row.settled_at is None for row in rows):
                await world.until(world.add(HEALTHY), 15)
                assert asyncio.get_running_loop().time() < 1200, world.relay.breaker
        check(rows)
        assert world.inngest.most_under_way <= 2 * senders
        assert not world.queue.stale

    random.seed(seed)
    run_in_virtual_time(main())
