"""A row is sent again only for a reason, and a slow Inngest is waited for."""

from __future__ import annotations

import pytest

from service.outbox.model import SentEntry
from service.relay.confirmation import (
    ConfirmationPolicy,
    ResendReason,
    StoreProgress,
    poll_seconds,
    resend_reason,
)

POLICY = ConfirmationPolicy(reorder_seconds=10, restart_seconds=5, stall_seconds=60)
NOW = 1_000.0


def entry(sent_seconds: float, sends: int = 1) -> SentEntry:
    return SentEntry(7, "e7", 0, sent_seconds, sends)


def storing(newest_held_seconds: float) -> StoreProgress:
    """Just now an event was found held that was answered so long ago."""
    fresh = StoreProgress(held_at=0.0, back_at=0.0)
    return fresh.with_held([entry(newest_held_seconds)], NOW)


def test_a_row_is_waited_for_while_older_ones_are_being_stored():
    assert resend_reason(entry(3_600), storing(3_600), POLICY, NOW) is None
    assert resend_reason(entry(0.1), storing(3_600), POLICY, NOW) is None


def test_a_row_that_the_store_has_passed_goes_again():
    assert resend_reason(entry(100), storing(89.9), POLICY, NOW) is ResendReason.PASSED


@pytest.mark.parametrize("seconds", [90, 90.1])
def test_events_may_be_stored_a_little_out_of_order(seconds):
    assert resend_reason(entry(100), storing(seconds), POLICY, NOW) is None


def test_an_event_that_was_sent_twice_says_nothing_of_the_order():
    progress = StoreProgress(0.0, 0.0).with_held([entry(1, sends=2)], NOW)
    assert resend_reason(entry(30), progress, POLICY, NOW) is None


def test_while_inngest_can_not_be_asked_nothing_goes_again():
    progress = StoreProgress(0.0, 0.0).with_silence(NOW - 500, away=True)
    assert resend_reason(entry(900), progress, POLICY, NOW) is None


@pytest.mark.parametrize(
    ("seconds", "reason"), [(4.9, None), (5, None), (5.1, ResendReason.RESTARTED)]
)
def test_after_inngest_was_away_a_short_quiet_is_enough(seconds, reason):
    progress = StoreProgress(0.0, 0.0).with_silence(NOW - 6, away=True).with_answer(NOW - seconds)
    assert resend_reason(entry(100), progress, POLICY, NOW) is reason


def test_rows_that_are_still_being_stored_after_a_lost_connection_are_waited_for():
    progress = StoreProgress(0.0, 0.0).with_silence(NOW - 30, away=True).with_answer(NOW - 29)
    progress = progress.with_held([entry(101)], NOW - 1)
    assert resend_reason(entry(100), progress, POLICY, NOW) is None


def test_an_inngest_that_refused_to_answer_was_not_away():
    progress = StoreProgress(0.0, 0.0).with_silence(NOW - 30, away=False).with_answer(NOW - 29)
    assert resend_reason(entry(100), progress, POLICY, NOW) is None


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


def test_events_that_come_after_a_restart_do_not_hold_up_what_it_lost():
    progress = StoreProgress(0.0, 0.0).with_silence(NOW - 30, away=True).with_answer(NOW - 6)
    progress = progress.with_held([entry(1, sends=2)], NOW - 0.1)
    assert resend_reason(entry(100), progress, POLICY, NOW) is ResendReason.RESTARTED
    assert resend_reason(entry(5), progress, POLICY, NOW) is None


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


@pytest.mark.parametrize(("answered", "reason"), [(30, ResendReason.RESTARTED), (29.9, None)])
def test_a_row_that_was_answered_as_inngest_went_away_may_be_lost(answered, reason):
    progress = StoreProgress(0.0, 0.0).with_silence(NOW - 30, away=True).with_answer(NOW - 29)
    assert resend_reason(entry(answered), progress, POLICY, NOW) is reason
