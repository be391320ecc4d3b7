"""What Inngest holds confirms rows in order, also over its outages."""

from __future__ import annotations

import asyncio
import random

import pytest

from inngest_outbox.inngest.send_result import SendResult
from inngest_outbox.outbox.model import SentEntry
from inngest_outbox.relay.confirmation import (
    ConfirmationPolicy,
    ResendReason,
    StoreProgress,
    poll_seconds,
    resend_reason,
)
from tests.support.confirmed_world import ConfirmedWorld
from tests.support.delivery_model import HEALTHY, REFUSED
from tests.support.memory_rows import MemoryRow
from tests.support.virtual_time import in_virtual_time

POLICY = ConfirmationPolicy(reorder_seconds=10, restart_seconds=5, stall_seconds=60)
NOW = 1_000.0


def entry(sent_seconds: float, sends: int = 1) -> SentEntry:
    return SentEntry(7, "e7", 0, sent_seconds, sends)


def storing(newest_held_seconds: float) -> StoreProgress:
    """Just now an event was found held that was answered so long ago."""
    fresh = StoreProgress(held_at=0.0, back_at=0.0)
    return fresh.with_held([entry(newest_held_seconds)], NOW)


def silent(seconds: float, until: float, *, away: bool = True) -> StoreProgress:
    """Inngest gave no answer between these two times ago."""
    unknown = StoreProgress(0.0, 0.0)
    return unknown.with_silence(NOW - seconds, away=away).with_answer(NOW - until)


LOST = ResendReason.RESTARTED
UNKNOWN = StoreProgress(0.0, 0.0)


@pytest.mark.parametrize(
    ("sent_seconds", "progress", "reason"),
    [
        # Older rows are being stored; the order may differ a little.
        (3_600, storing(3_600), None),
        (0.1, storing(3_600), None),
        (100, storing(90.1), None),
        (100, storing(90), None),
        (100, storing(89.9), ResendReason.PASSED),
        # An event that was sent twice says nothing of the order.
        (30, UNKNOWN.with_held([entry(1, sends=2)], NOW), None),
        # While Inngest is away nothing goes again; after that a short quiet is enough.
        (900, UNKNOWN.with_silence(NOW - 500, away=True), None),
        (100, silent(6, 4.9), None),
        (100, silent(6, 5), None),
        (100, silent(6, 5.1), LOST),
        # It goes on storing after a lost connection, or refused to answer.
        (100, silent(30, 29).with_held([entry(101)], NOW - 1), None),
        (100, silent(30, 29, away=False), None),
        # Events that come after a restart do not hold up what it lost.
        (100, silent(30, 6).with_held([entry(1, sends=2)], NOW - 0.1), LOST),
        (5, silent(30, 6).with_held([entry(1, sends=2)], NOW - 0.1), None),
        # A row that was answered as Inngest went away may be lost.
        (30, silent(30, 29), LOST),
        (29.9, silent(30, 29), None),
    ],
)
def test_a_row_is_waited_for_or_goes_again_by_what_is_known_of_the_store(
    sent_seconds, progress, reason
):
    assert resend_reason(entry(sent_seconds), progress, POLICY, NOW) is reason


@pytest.mark.parametrize(("sends", "seconds"), [(1, 60), (2, 120), (3, 240), (9, 960)])
def test_a_standstill_is_waited_for_longer_each_time(sends, seconds):
    for quiet, reason in [(seconds, None), (seconds + 1, ResendReason.STALLED)]:
        progress = StoreProgress(held_at=NOW - quiet, back_at=0.0)
        assert resend_reason(entry(2_000, sends), progress, POLICY, NOW) is reason


def test_questions_come_quickly_while_rows_are_found_and_slowly_otherwise():
    pauses = [POLICY.min_poll_seconds]
    for found in (True, False, False, False, False, False, True):
        pauses.append(poll_seconds(pauses[-1], POLICY, found=found))
    assert pauses == [0.25, 0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 0.25]


def test_a_question_that_found_nothing_shows_nothing():
    progress = storing(100)
    assert progress.with_held([], NOW + 1) == progress


@pytest.mark.parametrize(
    ("answered", "earlier"), [([31], True), ([30], True), ([29.9], False), ([1, 31, 1], True)]
)
def test_events_that_were_answered_before_inngest_was_away_are_told_from_later_ones(
    answered, earlier
):
    away = StoreProgress(0.0, 0.0).with_silence(NOW - 30, away=True)
    found = away.with_held([entry(seconds) for seconds in answered], NOW)
    assert (found.earlier_held_at == NOW) is earlier
    assert (found.held_at, found.newest_held) == (NOW, NOW - min(answered))


def test_a_new_connection_is_as_if_inngest_had_been_away():
    progress = StoreProgress(0.0, 0.0)
    assert progress.with_new_connection(NOW) == progress.with_silence(NOW, away=True)


def test_inngest_is_back_with_its_first_answer_after_the_silence():
    silent = StoreProgress(0.0, 0.0).with_silence(5.0, away=False)
    at_once = silent.with_answer(5.0)
    assert (at_once.back_at, at_once.with_answer(6.0).back_at) == (5.0, 6.0)
    assert at_once.with_answer(6.0).with_answer(7.0).back_at == 6.0
    assert resend_reason(entry(NOW), at_once, POLICY, NOW) is None


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
    rows = world.add(*[HEALTHY] * 2_000)
    async with world.running():
        seconds = await world.until(rows, 30)
    assert seconds < 2_000 / 200 / 0.9
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
    backlog = world.add(*[HEALTHY] * 2_000)
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
