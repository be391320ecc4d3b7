"""The breaker and its record: what is restored, told to others, and heeded of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.relay.breaker import Breaker
from inngest_outbox.relay.breaker_sync import Announcement
from inngest_outbox.relay.sends import BreakerState
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


TROUBLE = {"state": "backing_off", "reason": "503", "reopens_in_seconds": 60.0, "failures": 1}


@at_a_process()
async def test_a_pause_and_its_end_are_heeded_once_each(one: Process) -> None:
    one.another(paused_by="ada")
    assert (await one.tick()).paused
    await one.tick()
    one.another(paused_by=None)
    assert not (await one.tick()).paused
    assert one.changed_at == [1.0, 3.0]


@pytest.mark.parametrize(
    ("state", "seconds", "reopens_at"),
    [(BACKING_OFF, 61.0, 61.0), (MISCONFIGURED, 61.0, 61.0), (BACKING_OFF, 999.0, 301.0)],
)
@at_a_process()
async def test_anothers_trouble_is_heeded_where_nothing_was_answered_lately(
    one: Process, state: BreakerState, seconds: float, reopens_at: float
) -> None:
    one.another(**{**TROUBLE, "state": str(state), "reopens_in_seconds": seconds})
    assert await one.tick() == waiting(reopens_at, state)
    assert one.changed_at == [1.0]
    await one.tick()
    assert one.store.saves == 0


@at_a_process()
async def test_what_was_heeded_is_not_written_back(one: Process) -> None:
    await one.keeper.save()
    one.another(**TROUBLE)
    await one.tick()
    await one.tick()
    assert one.store.saves == 1


@at_a_process()
async def test_a_process_that_delivers_heeds_no_trouble_of_another(one: Process) -> None:
    one.keeper.answered(1)
    one.another(**TROUBLE)
    assert await one.tick() == fresh()
    one.another(**TROUBLE)
    assert await one.tick() == waiting(61.25)


@at_a_process(waiting(30.0))
async def test_a_process_in_trouble_keeps_its_own(one: Process) -> None:
    one.another(**{**TROUBLE, "reason": "another"})
    assert await one.tick() == waiting(30.0)
    assert one.changed_at == []


@pytest.mark.parametrize("told", [{"state": "healthy"}, {"state": "recovering"}])
@at_a_process(waiting(60.0))
async def test_a_process_that_waits_probes_when_another_delivers(
    one: Process, told: dict[str, Any]
) -> None:
    one.another(**told, reopens_in_seconds=9.0)
    assert (await one.tick()).reopens_at == 1.0
    assert one.changed_at == [1.0]


@at_a_process(waiting(60.0))
async def test_a_process_that_waits_probes_when_a_person_asks_for_it(one: Process) -> None:
    one.another(**TROUBLE)
    assert (await one.tick()).reopens_at == 60.0
    one.another(reopens_in_seconds=0.0)
    assert (await one.tick()).reopens_at == 2.0
    assert one.changed_at == [2.0]


@pytest.mark.parametrize("breaker", [waiting(1.0), waiting(0.5), replace(fresh(), reopens_at=9.0)])
@at_a_process()
async def test_who_does_not_wait_is_not_woken(one: Process, breaker: Breaker) -> None:
    one.keeper.breaker = breaker
    one.another(state="healthy")
    assert await one.tick() == breaker
    assert one.changed_at == []


@at_a_process()
async def test_what_was_heeded_once_is_not_heeded_again(one: Process) -> None:
    one.another(**TROUBLE)
    await one.tick()
    one.keeper.move(fresh())
    assert await one.tick() == fresh()


@at_a_process()
async def test_what_this_process_wrote_is_no_news_to_it(one: Process) -> None:
    one.keeper.move(waiting(60.0))
    await one.tick()
    assert one.store.record.state == "backing_off"
    one.keeper.move(fresh())
    assert await one.tick() == fresh()
    assert one.store.record.state == "healthy"


@at_a_process()
async def test_only_what_differs_from_the_record_is_written(one: Process) -> None:
    one.another(state="healthy", failures=0, reason="")
    await one.tick()
    assert one.store.saves == 0
    one.keeper.breaker = replace(fresh(), failures=1)
    await one.tick()
    await one.tick()
    assert one.store.saves == 1
    one.another(rate=999.0, failures=7, destination="elsewhere")
    await one.tick()
    assert one.store.saves == 1


@at_a_process(announcement=Announcement("here", "on"))
async def test_a_process_announces_itself_once(one: Process) -> None:
    await one.tick()
    assert (one.store.record.destination, one.store.record.confirmation) == ("here", "on")
    one.another(destination="elsewhere")
    await one.tick()
    assert one.store.saves == 1


@at_a_process(announcement=Announcement("here", "on"))
async def test_what_is_announced_already_is_not_written(one: Process) -> None:
    one.another(destination="here", confirmation="on")
    await one.tick()
    assert one.store.saves == 0


@pytest.mark.parametrize(
    ("told", "rate", "saves"),
    [
        (0.0, 1.0, 1),
        (0.0, 1.25, 2),
        (8.0, 7.0, 1),
        (8.0, 6.5, 2),
        (100.0, 110.0, 1),
        (100.0, 90.0, 1),
        (100.0, 110.5, 2),
        (100.0, 89.5, 2),
    ],
)
@at_a_process()
async def test_a_rate_is_written_when_it_changed_by_more_than_a_tenth_and_by_more_than_one(
    one: Process, told: float, rate: float, saves: int
) -> None:
    one.keeper.rate = told
    await one.keeper.save()
    one.keeper.rate = rate
    await one.tick()
    assert one.store.saves == saves


@at_a_process()
async def test_a_rate_is_compared_with_the_records_at_first(one: Process) -> None:
    one.another(rate=50.0)
    one.keeper.rate = 50.0
    await one.tick()
    assert one.store.saves == 0
