"""The relay's rooms: claims, requests in flight, settlements, the heartbeat and the stop."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from service.errors import OutboxUnavailableError
from service.inngest.send_result import SendResult
from service.outbox.model import Settlement
from tests.support.delivery_model import FAILING, HANGING, HEALTHY, ModelOutbox, ModelQueue
from tests.support.delivery_world import World
from tests.support.virtual_time import run_in_virtual_time

pytestmark = pytest.mark.usefixtures("quiet")


class FaultyQueue(ModelQueue):
    """Fails to settle `settle_faults` times, and says that `lost` rows were no longer claimed."""

    settle_faults = 0
    lost = 0

    async def settle(self, settlement: Settlement) -> int:
        if self.settle_faults:
            self.settle_faults -= 1
            raise OutboxUnavailableError
        return await super().settle(settlement) + self.lost


def test_a_settlement_is_tried_until_it_is_written_and_nothing_is_sent_twice() -> None:
    async def main() -> None:
        world = World(outbox=ModelOutbox(FaultyQueue))
        world.queue.settle_faults = 10
        rows = world.add(*[HEALTHY] * 5)
        async with world.running():
            assert 2.4 <= await world.until(rows, 5) <= 2.8
        assert world.inngest.times == Counter({row.seq: 1 for row in rows})

    run_in_virtual_time(main())


def test_rows_that_were_no_longer_claimed_are_counted() -> None:
    async def main() -> None:
        world = World(outbox=ModelOutbox(FaultyQueue))
        world.queue.lost = 3
        async with world.running():
            await world.until(world.add(HEALTHY), 1)
        assert world.recorder.counted["lease_lost"] == 3

    run_in_virtual_time(main())


def test_a_fault_of_the_sender_gives_the_rows_back_and_is_counted() -> None:
    async def main() -> None:
        world = World()
        world.inngest.fault = RuntimeError("ours")
        rows = world.add(*[HEALTHY] * 5)
        async with world.running():
            await asyncio.sleep(0.02)
            assert world.recorder.counted["task_restarts"] == 1
            world.inngest.fault = None
            await world.until(rows, 3)
        assert {row.attempts for row in rows} == {1}

    random.seed(1)
    run_in_virtual_time(main())


def test_what_was_claimed_while_the_breaker_changed_is_put_back_unsent_and_ages_nobody() -> None:
    async def main() -> None:
        world = World()
        rows = world.add(*[HEALTHY] * 5)
        keeper = world.relay._keeper
        permit = keeper.breaker.permit(world.relay._sends.count(0))
        batch = await world.queue.claim(world.request())
        keeper.breaker = keeper.breaker.with_pause(paused=True)
        await world.relay._delivery.deliver(permit, batch, send_until=60)
        assert not world.inngest.sent_at
        assert {(row.state, row.attempts, row.claim) for row in rows} == {("pending", 0, None)}
        assert not world.relay._sends.events

    run_in_virtual_time(main())


def test_a_batch_is_not_sent_after_a_pause_in_the_same_turn_of_the_loop() -> None:
    async def main() -> None:
        world = World()
        keeper = world.relay._keeper
        permit = keeper.breaker.permit(world.relay._sends.count(0))
        world.add(HEALTHY)
        batch = await world.queue.claim(world.request())
        world.relay._begin(permit, batch)
        keeper.breaker = keeper.breaker.with_pause(paused=True)
        await asyncio.sleep(0.1)
        assert world.inngest.sent_at == []

    run_in_virtual_time(main())


@pytest.mark.parametrize("senders", [1, 3])
def test_no_more_requests_are_in_flight_than_there_are_senders(senders: int) -> None:
    async def main() -> None:
        world = World(senders=senders, max_events=10)
        rows = world.add(*[HEALTHY] * 500)
        async with world.running():
            await world.until(rows, 30)
        assert world.inngest.most_under_way == senders

    run_in_virtual_time(main())


def test_a_batch_that_is_not_full_is_followed_by_the_next_after_ten_milliseconds() -> None:
    async def main() -> None:
        world = World(max_events=10)
        async with world.running():
            await world.until(world.add(HEALTHY), 1)
            world.inngest.sent_at.clear()
            world.add(HEALTHY)
            await asyncio.sleep(0.001)
            world.add(HEALTHY)
            await asyncio.sleep(0.001)
            world.add(*[HEALTHY] * 28)
            await asyncio.sleep(1)
        times = [at for at, _ in world.inngest.sent_at]
        assert [events for _, events in world.inngest.sent_at] == [1, 10, 10, 9]
        assert 0.009 <= times[1] - times[0] <= 0.011
        assert times[3] - times[1] < 0.001

    run_in_virtual_time(main())


def test_a_request_that_outlives_its_lease_ends_the_heartbeat() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.until(world.add(HEALTHY), 1)
            world.inngest.hang_seconds = 200
            world.add(HANGING)
            await asyncio.sleep(39)
            world.beats = 0
            await asyncio.sleep(10)
            assert world.beats <= 2

    run_in_virtual_time(main())


def test_nothing_is_sent_again_that_could_outlive_the_lease() -> None:
    async def main() -> None:
        world = World(senders=1, max_events=50)
        rows = world.add(*[HEALTHY] * 10)
        async with world.running():
            await world.until(rows, 1)
            bad = world.add(*[HANGING] * 50)
            for _ in range(100):
                await asyncio.sleep(0.5)
                await world.until(world.add(HEALTHY), 45)
            claimed = [row for row in bad if row.claim is not None]
            assert all(row.settled_at is None for row in bad)
        assert len(claimed) <= 1
        assert world.recorder.counted["lease_lost"] == 0
        assert world.queue.longest_claim_seconds <= world.queue.lease_seconds

    random.seed(1)
    run_in_virtual_time(main())


def test_a_stop_sends_nothing_again_and_gives_the_rows_back() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.until(world.add(HEALTHY), 1)
            rows = world.add(*[HEALTHY] * 20, FAILING)
            await asyncio.sleep(0.015)
            await world.relay.stop()
            assert len(world.inngest.sent_at) == 2
            assert {(row.state, row.claim, row.attempts) for row in rows} == {("pending", None, 0)}
            assert not any(row.isolated for row in rows)

    run_in_virtual_time(main())


def test_a_request_that_is_cut_off_at_the_stop_leaves_its_rows_to_the_lease() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            world.inngest.hang_seconds = 100
            [row] = world.add(HANGING)
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            await world.relay.stop()
            assert asyncio.get_running_loop().time() - began == pytest.approx(30, abs=0.1)
            assert row.claim is not None
        assert world.recorder.counted["relay_drain_overruns"] == 1

    run_in_virtual_time(main())


def test_a_run_that_is_cancelled_leaves_its_requests_to_the_next_run() -> None:
    async def main() -> None:
        world = World(senders=1)
        running = asyncio.create_task(world.relay.run())
        rows = world.add(HEALTHY)
        await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert world.relay._sends.count(0).others == 1
        rows += world.add(HEALTHY)
        async with world.running():
            await world.until(rows, 1)
        assert world.inngest.most_under_way == 1

    run_in_virtual_time(main())


def test_the_breakers_reason_is_the_answer_in_few_words() -> None:
    async def main() -> None:
        world = World()
        world.inngest.answer = SendResult(502, None, "bad gateway")
        world.add(HEALTHY)
        async with world.running():
            await asyncio.sleep(0.05)
        assert world.recorder.counted["sends"] == 1
        assert world.relay.breaker.reason == "502 bad gateway"

    run_in_virtual_time(main())
