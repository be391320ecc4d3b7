"""Outages of Inngest and delivery with nothing to send, in virtual time."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inngest_outbox.inngest.send_result import SendResult, Signal
from inngest_outbox.outbox.model import Batch, DeliveryRecord, Entry
from inngest_outbox.relay.empty_request import EmptyRequest, LoneFailure
from inngest_outbox.relay.report import Report
from inngest_outbox.relay.sends import BreakerState
from tests.support.delivery_model import BLOCKED, FAILING, HEALTHY, HUGE, MODES
from tests.support.delivery_world import Remembering, World, check
from tests.support.virtual_time import in_virtual_time

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(autouse=True)
def _chance() -> None:
    random.seed(1)


@pytest.mark.parametrize("mode", ["failing", "no_key", "busy"])
@in_virtual_time
async def test_trouble_ends_by_itself_when_the_only_waiting_event_is_discarded(mode: str) -> None:
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


@pytest.mark.parametrize("ends", ["another passes", "it is discarded"])
@in_virtual_time
async def test_an_event_that_always_fails_alone_is_told_and_not_held_against_it(ends: str) -> None:
    world = World()
    rows = world.add(FAILING)
    async with world.running():
        await asyncio.sleep(120)
        assert (rows[0].state, rows[0].attempts) == ("pending", 0)
        assert world.recorder.shown["lone_event_fails"] == 1
        asked = len(world.inngest.sent_at)
        await asyncio.sleep(600)
        assert len(world.inngest.sent_at) - asked <= 600
        if ends == "another passes":
            await world.until(world.add(HEALTHY), 6)
        else:
            await world.discard(rows)
            await asyncio.sleep(10)
            assert world.relay.breaker.state is BreakerState.HEALTHY
        assert world.recorder.shown["lone_event_fails"] == 0


@in_virtual_time
async def test_an_event_that_passes_while_inngest_is_asked_about_it_is_not_told() -> None:
    answer, recorder = asyncio.Event(), Remembering()

    async def send(*_: object) -> SendResult:
        await answer.wait()
        return SendResult(200, ())

    sync = SimpleNamespace(breaker=SimpleNamespace(epoch=1))
    empty = EmptyRequest(cast("Any", SimpleNamespace(send=send)), cast("Any", sync))
    lone = LoneFailure(empty, Report(recorder))
    batch = Batch("claim", (Entry(1, "e1", 0, "u-1"),), b"{}")
    for signal in (*[Signal.TROUBLE] * 5, Signal.PASSED):
        lone.answered(batch, signal)
    await asyncio.sleep(1)
    answer.set()
    await asyncio.sleep(1)
    assert "lone_event_fails" not in recorder.shown


@in_virtual_time
async def test_an_outage_that_one_event_waits_for_is_not_told_as_the_events_fault() -> None:
    world = World()
    world.inngest.mode = "failing"
    world.add(HEALTHY)
    async with world.running():
        await asyncio.sleep(300)
    assert not world.recorder.shown.get("lone_event_fails")


@in_virtual_time
async def test_one_event_alone_that_is_too_large_dies_when_an_empty_request_passes() -> None:
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
    world = World()
    world.inngest.answer = BLOCKED["blocked-429"]
    rows = world.add(*[HEALTHY] * 5)
    async with world.running():
        await asyncio.sleep(2)
        world.inngest.answer = None
        await world.outbox.repairs.set_paused(paused=False, actor="ada", ask_now=True)
        await world.until(rows, 2)


@pytest.mark.parametrize(
    ("mode", "senders"), [*((mode, 4) for mode in MODES), ("hang", 1), ("failing", 1)]
)
@in_virtual_time
async def test_an_outage_ages_nobody_and_all_is_delivered_within_15_s_of_its_end(
    mode: str, senders: int
) -> None:
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
    world = World()
    world.inngest.mode = mode
    world.add(*[HEALTHY] * 250)
    async with world.running():
        await asyncio.sleep(20)
        asked = len(world.inngest.sent_at)
        await asyncio.sleep(600)
    later = world.inngest.sent_at[asked:]
    assert {events for _, events in later} <= {0, 1}  # a probe may be empty
    assert 600 / 5 - 2 <= len(later) <= 600


@in_virtual_time
async def test_isolated_events_of_a_long_outage_are_delivered_soon_after_it() -> None:
    world = World()
    world.inngest.mode = "failing"
    rows = world.add(*[HEALTHY] * 200)
    async with world.running():
        for _ in range(120):
            await asyncio.sleep(5)
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
