"""A relay starts, stops and goes on; rows that Inngest is asked about keep no sender."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.inngest.dedupe_horizon import DedupeHorizon, HorizonCheck
from inngest_outbox.inngest.held import HeldEvent
from inngest_outbox.outbox.inngest_id import decode_ulid, encode_ulid
from inngest_outbox.outbox.model import Batch, ClaimRequest, DeliveryRecord, Retry, Settlement
from inngest_outbox.relay.outcome import RetryPolicy
from inngest_outbox.relay.sends import BreakerState
from tests.support.delivery_model import FAILING, HANGING, HEALTHY, REFUSED, ModelOutbox, ModelQueue
from tests.support.delivery_world import World, check
from tests.support.memory_rows import IDS, MemoryRow
from tests.support.virtual_time import in_virtual_time

pytestmark = pytest.mark.usefixtures("quiet")


class CountedQueue(ModelQueue):
    """Counts claims, and raises `fault` instead of settling."""

    claims = 0
    fault: Exception | None = None

    async def claim(self, ask: ClaimRequest) -> Batch:
        self.claims += 1
        return await super().claim(ask)

    async def settle(self, settlement: Settlement) -> int:
        if self.fault is not None:
            raise self.fault
        return await super().settle(settlement)


def counted(**options: Any) -> World:
    return World(outbox=ModelOutbox(CountedQueue), **options)


def isolated(world: World, count: int) -> list[MemoryRow]:
    rows = world.add(*[HEALTHY] * count)
    for row in rows:
        row.isolated = True
    return rows


@asynccontextmanager
async def claiming(world: World) -> AsyncIterator[None]:
    """The relay runs, and shares its breaker with nobody."""
    running = asyncio.create_task(world.relay.run())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@in_virtual_time
async def test_it_beats_until_a_request_is_older_than_its_lease_of_two_keys_and_a_margin() -> None:
    world = World(max_events=1)
    world.inngest.hang_seconds = 200
    world.add(HANGING)
    async with claiming(world):
        await asyncio.sleep(39.5)
        assert world.queue.lease_seconds == 2 * 10 + 20
        world.beats = 0
        await asyncio.sleep(60)
    assert 0 < world.beats <= 3  # all at 40 s


@in_virtual_time
async def test_events_that_are_refused_are_dead_as_the_policy_says() -> None:
    world = World()
    world.relay = world.made_relay(retry_policy=RetryPolicy(refusal_delays_seconds=()))
    [row] = world.add(REFUSED)
    async with claiming(world):
        await asyncio.sleep(0.1)
    assert (row.state, row.attempts) == ("dead", 1)


@in_virtual_time
async def test_in_trouble_one_probe_is_in_flight_at_a_time() -> None:
    world = World(max_events=1)
    world.inngest.mode = "away"
    world.add(*[HEALTHY] * 10)
    async with claiming(world):
        await asyncio.sleep(1)
        world.inngest.most_under_way = 0
        await asyncio.sleep(60)
    assert world.inngest.most_under_way == 1


@pytest.mark.parametrize(
    ("senders", "in_flight", "isolated", "claims"),
    [(2, 1, False, 2), (2, 2, False, 3), (2, 1, True, 3), (1, 1, False, 2)],
)
@in_virtual_time
async def test_a_claim_is_made_again_when_a_sender_is_free_that_it_could_not_count_on(
    senders: int, in_flight: int, claims: int, *, isolated: bool
) -> None:
    world = counted(senders=senders, max_events=1)
    rows = world.add(*[HEALTHY] * in_flight)
    rows[0].isolated = isolated
    async with claiming(world):
        await asyncio.sleep(0.5)
        assert all(row.state == "delivered" for row in rows)
        assert world.queue.claims == claims


@in_virtual_time
async def test_isolated_events_follow_each_other_at_once() -> None:
    world = World(senders=1)
    async with claiming(world):
        await world.until(isolated(world, 3), 0.3)


@in_virtual_time
async def test_in_recovery_batches_follow_each_other_at_once() -> None:
    world = World(max_events=500)
    world.inngest.mode = "away"
    rows = world.add(*[HEALTHY] * 1000)
    async with claiming(world):
        await asyncio.sleep(0.1)
        world.inngest.mode = None
        while world.relay.breaker.state is not BreakerState.RECOVERING:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await world.until(rows, 0.8)


@in_virtual_time
async def test_what_ends_a_delivery_is_reported_where_it_is_a_fault() -> None:
    world, unheard = counted(senders=2), []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    async with claiming(world):
        await world.until(world.add(HEALTHY), 1)
        assert not world.relay._deliveries
        assert not world.recorder.counted["task_restarts"]
        world.queue.fault = RuntimeError("ours")
        world.add(HEALTHY)
        await asyncio.sleep(0.5)
        assert world.recorder.counted["task_restarts"] == 1
        world.inngest.hang_seconds = 100
        world.add(HANGING)
        await asyncio.sleep(0.5)
        await world.relay.stop()
    assert world.recorder.counted["task_restarts"] == 1
    assert (unheard, world.relay._deliveries) == ([], set())


@in_virtual_time
async def test_a_stop_ends_a_run_that_waits_for_rows() -> None:
    world = World()
    running = asyncio.create_task(world.relay.run())
    await asyncio.sleep(10)
    await world.relay.stop()
    await asyncio.wait_for(running, 0.1)


@in_virtual_time
async def test_a_stop_ends_an_empty_request() -> None:
    world = World()
    world.inngest.mode = "failing"
    rows = world.add(HEALTHY)
    async with claiming(world):
        await asyncio.sleep(10)
        await world.discard(rows)
        world.inngest.mode = "hang"
        while not world.inngest.under_way:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        await world.relay.stop()
        assert not world.inngest.under_way


@in_virtual_time
async def test_a_stop_leaves_the_trouble_to_the_next_start_and_needs_no_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(record: DeliveryRecord) -> DeliveryRecord:
        raise OutboxUnavailableError

    world = World()
    world.inngest.mode = "failing"
    world.add(FAILING)
    async with claiming(world):
        await asyncio.sleep(1)
    await world.relay.stop()
    record = await world.outbox.delivery.load()
    assert (record.state, record.reason) == ("backing_off", "500 down")
    monkeypatch.setattr(world.outbox.delivery, "save", away)
    await world.relay.stop()


@in_virtual_time
async def test_what_is_confirmed_counts_for_the_rate() -> None:
    world = World()
    sharing = asyncio.create_task(world.relay.sync_breaker())
    world.relay.confirmed(100)
    await asyncio.sleep(2.5)  # what one exchange has counted, the next one tells
    assert (await world.outbox.delivery.load()).rate == pytest.approx(30)
    sharing.cancel()


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


class Questions:
    """All isolated rows are old, and Inngest holds them. The first `away` batches can't be asked.

    While there is a `fault`, a question ends with it.
    """

    def __init__(self, *, away: int = 0) -> None:
        self.away = away
        self.fault: Exception | None = None

    async def check(self, batch: Batch, now_ms: int) -> HorizonCheck:
        await asyncio.sleep(0.05)
        if self.fault is not None:
            raise self.fault
        if not batch.entries[0].isolated:
            return HorizonCheck(batch, None)
        self.away -= 1
        if self.away >= 0:
            later = [
                Retry(entry.seq, 30.0, entry.attempts, isolated=True) for entry in batch.entries
            ]
            return HorizonCheck(None, Settlement(batch.claim, retry=later))
        held = [entry.seq for entry in batch.entries]
        return HorizonCheck(None, Settlement(batch.claim, delivered=held))


def asking(questions: Questions | DedupeHorizon, senders: int) -> World:
    world = World(senders=senders, max_events=500)
    world.relay = world.made_relay(horizon=questions)
    return world


@pytest.mark.parametrize(
    ("senders", "away", "count", "seconds"),
    [(1, 0, 10, 1), (4, 0, 10, 1), (1, 1, 1, 31)],
    ids=["one sender", "four senders", "Inngest could not be asked at first"],
)
@in_virtual_time
async def test_isolated_rows_that_inngest_holds_follow_each_other(
    senders: int, away: int, count: int, seconds: float
) -> None:
    world = asking(Questions(away=away), senders)
    async with world.running():
        await world.until(isolated(world, count), seconds)
    assert not world.inngest.sent_at


@in_virtual_time
async def test_questions_that_end_with_a_fault_keep_no_sender() -> None:
    questions = Questions()
    world = asking(questions, senders=2)
    questions.fault = RuntimeError("ours")
    async with world.running():
        rows = []
        for _ in range(5):
            rows += world.add(HEALTHY)
            await asyncio.sleep(1)
        assert world.recorder.counted["task_restarts"] == 5
        questions.fault = None
        rows += world.add(HEALTHY)
        await world.until(rows[-1:], 1)
        await world.until(rows, 45)


class SlowPages:
    """Inngest holds other events under all ULIDs, and takes so many seconds for a page."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> list[HeldEvent]:
        await asyncio.sleep(self.seconds)
        newest = decode_ulid(before) - 1
        return [HeldEvent(encode_ulid(newest - at), "another") for at in range(limit)]


@pytest.mark.parametrize("seconds", [0.1, 2.5, 9.0])
@in_virtual_time
async def test_slow_answers_hold_back_no_event_and_each_old_row_has_a_turn(
    seconds: float,
) -> None:
    world = asking(DedupeHorizon(SlowPages(seconds), IDS), senders=1)
    rows = world.add(*[HEALTHY] * 400)
    for row in rows:
        row.first_sent_at = row.born_at
    new = world.add(*[HEALTHY] * 10)
    async with world.running():
        await world.until(new, 60)
        await world.until(rows, 1200)
    assert world.recorder.counted["lease_lost"] == 0
