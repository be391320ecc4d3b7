"""The breaker and its record: what is restored, told to others, and heeded of them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import structlog

from service.errors import OutboxUnavailableError
from service.outbox.model import DeliveryRecord
from service.relay.breaker import Breaker
from service.relay.breaker_sync import Announcement
from service.relay.sends import BreakerState
from tests.support.breakers import Process, at_a_process, fresh, passed, waiting

HEALTHY, BACKING_OFF = BreakerState.HEALTHY, BreakerState.BACKING_OFF
MISCONFIGURED = BreakerState.MISCONFIGURED
OURS = Announcement("here", "on")


@pytest.mark.parametrize(
    ("told", "seconds", "state", "reopens_at"),
    [
        ("backing_off", 3.0, BACKING_OFF, 3.0),
        ("backing_off", 3600.0, BACKING_OFF, 5.0),
        ("recovering", 3.0, BACKING_OFF, 3.0),
        ("misconfigured", 3.0, MISCONFIGURED, 0.0),
    ],
)
@at_a_process()
async def test_a_start_goes_on_with_the_trouble_of_the_last_run(
    one: Process, told: str, seconds: float, state: BreakerState, reopens_at: float
) -> None:
    await asyncio.sleep(0.5)
    one.another(state=told, reason="503", reopens_in_seconds=seconds, since_ms=123)
    await one.keeper.restore()
    assert one.keeper.breaker == waiting(0.5 + reopens_at, state)
    await one.keeper.save()
    assert one.store.record.since_ms == 123


@at_a_process()
async def test_a_start_after_no_trouble_is_healthy_and_keeps_a_pause(one: Process) -> None:
    one.another(paused_by="ada")
    await one.keeper.restore()
    assert one.keeper.breaker == fresh().with_pause(paused=True)
    assert one.changed_at == [0.0]


@at_a_process()
async def test_only_the_first_start_restores_and_one_without_a_store_does_not_count(
    one: Process,
) -> None:
    one.another(state="backing_off", reopens_in_seconds=3.0)
    one.store.away = True
    with pytest.raises(OutboxUnavailableError):
        await one.keeper.restore()
    one.store.away = False
    await one.keeper.restore()
    assert one.keeper.breaker.state is BACKING_OFF
    one.keeper.breaker = fresh()
    await one.keeper.restore()
    assert one.keeper.breaker == fresh()


@at_a_process()
async def test_what_was_restored_is_no_news_of_another(one: Process) -> None:
    one.another(state="healthy")
    await one.keeper.restore()
    one.keeper.move(waiting(60.0))
    assert (await one.tick()).reopens_at == 60.0


@at_a_process()
async def test_the_rate_follows_what_was_delivered_in_a_second(one: Process) -> None:
    assert one.keeper.rate == 0.0
    one.keeper.delivered(40)
    one.keeper.delivered(60)
    await one.tick()
    assert one.keeper.rate == pytest.approx(30.0)
    one.store.away = True
    await one.tick()
    assert one.keeper.rate == pytest.approx(21.0)


@pytest.mark.parametrize(
    ("before", "breaker", "level", "reason"),
    [
        (fresh(), waiting(0.0), "warning", "503"),
        (fresh(), waiting(0.0, MISCONFIGURED), "error", "503"),
        (waiting(0.0), fresh(), "warning", None),
    ],
)
@at_a_process()
async def test_a_change_of_state_is_logged_and_told(
    one: Process, before: Breaker, breaker: Breaker, level: str, reason: str | None
) -> None:
    one.another(state=str(before.state), since_ms=123)
    await one.keeper.restore()
    one.keeper.breaker = before
    with structlog.testing.capture_logs() as logged:
        one.keeper.move(breaker)
        one.keeper.move(passed(breaker) if breaker.state is HEALTHY else breaker)
    states = {"before": before.state, "after": breaker.state}
    said = {"event": "breaker_changed", "log_level": level, **states, "reason": reason}
    assert (logged, one.changed_at) == ([said], [0.0])
    await one.keeper.save()
    assert one.store.record.since_ms > 1_600_000_000_000


@at_a_process(waiting(60.0), OURS)
async def test_the_record_says_all_that_others_want_to_know(one: Process) -> None:
    one.another(paused_by="ada", pause_reason="holidays", since_ms=123)
    one.keeper.rate = 1.26
    await one.keeper.save()
    record = one.store.record
    assert record.since_ms > 1_600_000_000_000
    assert msgspec.structs.replace(record, since_ms=0) == DeliveryRecord(
        state="backing_off",
        reason="503",
        window=1,
        failures=1,
        reopens_in_seconds=60.0,
        since_ms=0,
        rate=1.3,
        paused_by="ada",
        revision=2,
        destination="here",
        confirmation="on",
        pause_reason="holidays",
    )
    one.keeper.breaker = waiting(0.0)
    await asyncio.sleep(0.5)
    await one.keeper.save()
    assert one.store.record.reopens_in_seconds == 0.0
