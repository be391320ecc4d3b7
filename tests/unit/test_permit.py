"""What requests in flight, answers and views say where nothing else is said of them."""

from __future__ import annotations

import pytest

from service.inngest.send_result import Signal
from service.relay.sends import Answered, BreakerView, InFlight


def test_nothing_is_in_flight() -> None:
    assert InFlight() == InFlight(isolated=0, others=0, isolated_now=0, others_now=0)


def test_an_answer_is_to_a_batch_that_is_sent_for_the_first_time() -> None:
    answered = Answered(Signal.BUSY, 5.0)
    assert answered == Answered(
        Signal.BUSY,
        5.0,
        size=1,
        reason="",
        retry_after_seconds=None,
        lone=None,
        known_isolated=False,
        again=False,
        newly_refused=None,
        drained=False,
        seqs=frozenset(),
    )
    assert not answered.failed_before


def test_an_event_is_one_of_which_nothing_is_known() -> None:
    assert BreakerView() == BreakerView(
        resend=True,
        refusing=False,
        confirmed_bad=False,
        refusals=0,
        bad_events=False,
        passed_size=0,
    )


@pytest.mark.parametrize(
    ("known_isolated", "again", "before"),
    [(False, False, False), (True, False, True), (False, True, True), (True, True, True)],
)
def test_events_failed_before_where_they_are_isolated_or_part_of_what_failed(
    *, known_isolated: bool, again: bool, before: bool
) -> None:
    answered = Answered(Signal.BUSY, 5.0, known_isolated=known_isolated, again=again)
    assert answered.failed_before is before
