"""Processes exchange their breakers: whose trouble is heeded, and what is written when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.relay.breaker import Breaker
from service.relay.breaker_sync import Announcement
from service.relay.sends import BreakerState
from tests.support.breakers import Process, at_a_process, fresh, waiting

BACKING_OFF, MISCONFIGURED = BreakerState.BACKING_OFF, BreakerState.MISCONFIGURED
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
