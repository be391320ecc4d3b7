"""The breaker: whatever was answered, it becomes healthy again, and in trouble one event asks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inngest_outbox.inngest.send_result import Signal
from inngest_outbox.outbox.model import Isolated
from inngest_outbox.relay.breaker import Breaker
from inngest_outbox.relay.breaker_policy import BreakerPolicy
from inngest_outbox.relay.breaker_result import view, with_result
from inngest_outbox.relay.evidence import IsolationLedger
from inngest_outbox.relay.sends import Answered, BreakerState, BreakerView, InFlight
from tests.support.breakers import IDLE, after, fresh, knowing, passed

POLICY = BreakerPolicy()
TROUBLES = [Signal.TROUBLE, Signal.BUSY, Signal.UNREACHED, Signal.MISCONFIGURED]
ANSWERED = st.builds(
    Answered,
    st.sampled_from(list(Signal)),
    st.floats(0, 1e3),
    size=st.integers(1, 1 << 20),
    reason=st.just("why"),
    retry_after_seconds=st.none() | st.floats(0, 1e6),
    lone=st.none() | st.integers(1, 4),
    known_isolated=st.booleans(),
    again=st.booleans(),
    newly_refused=st.none() | st.integers(1, 20),
    drained=st.booleans(),
    seqs=st.frozensets(st.integers(1, 4)),
)
ANSWERS = st.lists(st.tuples(ANSWERED, st.floats(0, 0.999), st.integers(0, 2)), max_size=40)


Answers = list[tuple[Answered, float, int]]


def played(answers: Answers) -> tuple[Breaker, float]:
    breaker, now = fresh(), 0.0
    permits = [breaker.permit(IDLE)]
    for answered, jitter, ago in answers:
        now += breaker.wait_seconds(now, IDLE) or 0.0
        permits.append(breaker.permit(IDLE))
        breaker = breaker.began(isolated=answered.known_isolated)
        permit = permits[max(0, len(permits) - 1 - ago)]
        breaker = with_result(breaker, answered, permit=permit, now=now, jitter=jitter)
    return breaker, now


@given(ANSWERS)
def test_it_is_healthy_again_within_ten_good_answers_and_when_nothing_waits(
    answers: Answers,
) -> None:
    breaker, now = played(answers)
    wait = breaker.wait_seconds(now, IDLE)
    assert wait is not None
    assert 0 <= round(wait, 6) <= POLICY.max_retry_after
    idle = breaker.with_idle()
    assert (idle.state, idle.reason, idle.refusing) == (BreakerState.HEALTHY, "", False)
    assert idle.limit.is_full
    for _ in range(10):
        breaker = passed(breaker, now)
    assert (breaker.state, breaker.reason, breaker.failures) == (BreakerState.HEALTHY, "", 0)
    assert breaker.limit.is_full
    assert passed(breaker, now).state is BreakerState.HEALTHY


@given(ANSWERS)
def test_one_that_waits_lets_no_more_ask_than_it_has_probes_and_a_pause_lets_nothing_begin(
    answers: Answers,
) -> None:
    breaker, now = played(answers)
    permit = breaker.permit(IDLE)
    assert 1 <= permit.max_events <= 500
    assert 1 <= permit.max_bytes <= 1 << 20
    assert permit.max_events == 1 or not breaker.state.waits
    one, isolated = InFlight(others=1, others_now=1), InFlight(isolated=1, isolated_now=1)
    if breaker.state.waits:
        spent = replace(breaker, probes_left=0)
        waits = [spent.wait_seconds(now + 1e6, flying) for flying in (one, isolated, IDLE)]
        assert waits == [None, None, 0]
        assert breaker.probes_left <= POLICY.max_probes
        may_be_events = breaker.refusing or breaker.failures > POLICY.widen_after
        assert breaker.probes_left <= 1 or may_be_events or breaker.ledger.found_at is not None
    if breaker.state is BreakerState.RECOVERING:
        assert [breaker.wait_seconds(now, flying) for flying in (one, isolated)] == [None, 0]
    paused = breaker.with_pause(paused=True)
    assert paused.wait_seconds(now + 1e6, IDLE) is None
    assert not paused.is_current(permit)
    assert paused.with_pause(paused=False) == breaker


@given(ANSWERS)
def test_an_answer_from_before_the_last_trouble_trips_nothing(answers: Answers) -> None:
    breaker, now = played(answers)
    old = replace(breaker.permit(IDLE), epoch=breaker.epoch - 1)
    for signal in [*TROUBLES, Signal.REFUSED, Signal.TOO_LARGE]:
        answered = Answered(signal, now, newly_refused=7)
        late = with_result(breaker, answered, permit=old, now=now, jitter=0.5)
        assert late == breaker


@pytest.mark.parametrize("signal", TROUBLES)
def test_the_first_failure_trips_where_nothing_has_passed(signal: Signal) -> None:
    breaker = after(fresh(), signal, reason="500 oh")
    waiting = BreakerState.BACKING_OFF
    if signal is Signal.MISCONFIGURED:
        waiting = BreakerState.MISCONFIGURED
        assert breaker.reopens_at == POLICY.misconfigured_wait
    assert (breaker.state, breaker.reason) == (waiting, "500 oh")
    assert breaker.limit.events == 1


@pytest.mark.parametrize("signal", TROUBLES)
def test_beside_what_passes_only_many_failures_in_a_row_trip(signal: Signal) -> None:
    breaker = passed(fresh())
    for _ in range(POLICY.failures_while_passing - 1):
        breaker = after(breaker, signal, 0.5)
        assert breaker.state is BreakerState.HEALTHY
    assert passed(breaker, 0.5).streak.count == 0
    assert after(breaker, signal, 0.5).state.waits


def test_two_failures_trip_when_nothing_passed_for_a_second_meanwhile() -> None:
    breaker = after(passed(fresh()), Signal.TROUBLE, 5.0, began_at=5.0)
    assert after(breaker, Signal.TROUBLE, 5.9).state is BreakerState.HEALTHY
    assert after(breaker, Signal.TROUBLE, 6.0).state is BreakerState.BACKING_OFF
    assert after(passed(breaker, 5.5), Signal.TROUBLE, 6.0).state is BreakerState.HEALTHY


@pytest.mark.parametrize("signal", [Signal.REFUSED, Signal.TOO_LARGE])
def test_eight_judged_in_a_row_are_inngests_trouble_also_at_the_start(signal: Signal) -> None:
    breaker = fresh()
    for seq in range(7):
        breaker = after(breaker, signal, lone=seq, newly_refused=seq)
        assert breaker.state is BreakerState.HEALTHY
    again = after(breaker, signal, lone=6, known_isolated=True)
    assert again.state is BreakerState.HEALTHY
    tripped = after(breaker, signal, lone=7, newly_refused=7)
    assert (tripped.state, tripped.refusing) == (BreakerState.BACKING_OFF, True)
    assert tripped.reason in {"every event is refused", "every event is too large"}
    assert view(tripped, breaker, tripped.permit(IDLE), 7, 0.0).refusing


def test_backoff_doubles_with_full_jitter_and_a_retry_after_is_waited() -> None:
    breaker, waits = fresh(), []
    for _ in range(7):
        breaker = replace(after(breaker, Signal.TROUBLE, 10.0), probes_left=0)
        waits.append(breaker.reopens_at - 10.0)
    assert waits == [0.125, 0.25, 0.5, 1.0, 2.0, 2.5, 2.5]
    asked = after(breaker, Signal.BUSY, 10.0, retry_after_seconds=12.0)
    assert asked.reopens_at == 22.0


def test_what_passed_before_the_trouble_began_does_not_end_it() -> None:
    before = fresh().permit(IDLE)
    troubled = after(fresh(), Signal.TROUBLE)
    beside = with_result(troubled, Answered(Signal.PASSED, 0), permit=before, now=1, jitter=0.5)
    assert beside.state is BreakerState.RECOVERING  # of two in flight one failed
    troubled = after(replace(troubled, probes_left=0), Signal.TROUBLE)
    late = with_result(troubled, Answered(Signal.PASSED, 0), permit=before, now=1, jitter=0.5)
    assert late.state is BreakerState.BACKING_OFF
    asked = troubled.permit(IDLE)
    again = after(replace(troubled, probes_left=0), Signal.TROUBLE)
    ended = with_result(again, Answered(Signal.PASSED, 0), permit=asked, now=1, jitter=0.5)
    assert ended.state is BreakerState.RECOVERING


def test_a_restart_in_trouble_asks_with_one_event_and_resume_asks_at_once() -> None:
    before = knowing(passed(fresh()), failed_alone=frozenset({7}))
    breaker = before.resumed(BreakerState.RECOVERING, reason="500", reopens_at=5.0)
    assert (breaker.state, breaker.permit(IDLE).max_events) == (BreakerState.BACKING_OFF, 1)
    assert breaker.wait_seconds(1.0, IDLE) == 4.0
    assert breaker.asking_at(1.0).wait_seconds(1.0, IDLE) == 0.0
    assert breaker.asking_at(9.0).wait_seconds(1.0, IDLE) == 4.0
    assert (breaker.probes_left, breaker.ledger.failed_alone) == (1, frozenset())
    late = Answered(Signal.PASSED, 0.0)
    beside = with_result(breaker, late, permit=before.permit(IDLE), now=1.0, jitter=0.5)
    assert beside.state is BreakerState.BACKING_OFF


def refused_in_a_row(breaker: Breaker, now: float) -> Breaker:
    for seq in range(8):
        breaker = after(breaker, Signal.REFUSED, now, lone=seq, newly_refused=seq)
    return breaker


def only_refusing(now: float) -> Breaker:
    """A breaker after eight refusals in a row and a round of probes that were refused too."""
    tripped = refused_in_a_row(passed(fresh()), now)
    return after(replace(tripped, probes_left=0), Signal.REFUSED, now, lone=8, newly_refused=8)


def test_an_empty_request_is_witness_after_five_minutes_of_nothing_but_refusals() -> None:
    tripped = refused_in_a_row(passed(fresh()), 100.0)
    assert tripped.wait_seconds(100.0, IDLE) == 0.0  # it may be a run of bad events
    refusing = only_refusing(100.0)
    assert (refusing.state, refusing.failures) == (BreakerState.BACKING_OFF, 2)
    assert not refusing.wants_witness(399.9)
    assert refusing.wants_witness(400.0)
    witnessed = refusing.with_witness(400.0)
    assert (witnessed.state, witnessed.refusing) == (BreakerState.RECOVERING, False)
    assert (witnessed.failures, witnessed.reopens_at) == (0, 0.0)
    assert not witnessed.wants_witness(400.0)
    for earlier in (fresh(), tripped, refusing):
        assert not witnessed.is_current(earlier.permit(IDLE))
    assert witnessed.is_current(witnessed.permit(IDLE))
    assert witnessed.wait_seconds(400.0, IDLE) == 0.0


def test_a_witness_counts_for_a_minute_in_which_refusals_trip_nothing() -> None:
    witnessed = only_refusing(100.0).with_witness(400.0)
    assert refused_in_a_row(witnessed, 459.9).state is BreakerState.RECOVERING
    assert refused_in_a_row(witnessed, 460.0).state is BreakerState.BACKING_OFF
    troubled = after(witnessed, Signal.TROUBLE, 401.0)
    assert troubled.wait_seconds(401.0, IDLE) == 0.125


def test_an_idle_breaker_forgets_its_failures_and_that_events_go_alone() -> None:
    refusing = only_refusing(100.0)
    idle = replace(refusing, narrow=True, widened=False).with_idle()
    assert idle.permit(IDLE) == replace(fresh().permit(IDLE), epoch=refusing.epoch)
    assert (idle.refusing, idle.failures, idle.reason) == (False, 0, "")
    assert after(idle, Signal.TROUBLE, 200.0).wait_seconds(200.0, IDLE) == 0.125


@pytest.mark.parametrize(("hung_seconds", "alone_seconds"), [(3.0, 10.0), (10.0, 20.0)])
def test_after_a_request_hung_events_go_alone_for_twice_its_time_and_ten_seconds_at_least(
    hung_seconds: float, alone_seconds: float
) -> None:
    hung = after(
        passed(fresh(), 70.0), Signal.TROUBLE, 80.0, began_at=80.0 - hung_seconds, hung=True
    )
    assert hung.permit(IDLE).singly
    assert passed(hung, 79.9 + alone_seconds).permit(IDLE).singly
    assert not passed(hung, 80.0 + alone_seconds).permit(IDLE).singly


def test_a_size_that_was_too_large_is_halved_and_tried_again_after_200_passes() -> None:
    assert after(fresh(), Signal.TOO_LARGE, size=1).permit(IDLE).max_bytes == 1
    breaker = after(passed(fresh()), Signal.TOO_LARGE, size=2001)
    for _ in range(10):
        breaker = passed(breaker)
    breaker = after(breaker, Signal.TOO_LARGE, size=1001)
    for _ in range(200):
        breaker = passed(breaker)
        assert breaker.permit(IDLE).max_bytes == 500
    assert after(breaker, Signal.TOO_LARGE, size=4000).permit(IDLE).max_bytes == 500
    for size in [1000] * 201 + [2000]:
        breaker = passed(breaker)
        assert breaker.permit(IDLE).max_bytes == size


def test_an_event_that_is_too_large_by_itself_limits_no_batch() -> None:
    breaker = after(passed(fresh()), Signal.TOO_LARGE, size=1001, lone=7)
    assert breaker.permit(IDLE).max_bytes == 500
    again = after(passed(breaker), Signal.TOO_LARGE, size=1001, lone=7, known_isolated=True)
    assert again.permit(IDLE).max_bytes == 1 << 20


def test_a_smaller_pass_ends_the_suspicion_of_a_large_event() -> None:
    one = InFlight(isolated=1, isolated_now=1)
    suspected = after(passed(fresh()), Signal.TOO_LARGE, lone=7)
    assert suspected.permit(one).isolated is Isolated.NONE
    known = replace(suspected, ledger=suspected.ledger.with_smaller_pass(7))
    assert known.permit(one).isolated is not Isolated.NONE
    assert view(known, known, known.permit(IDLE), 7, 0.0).confirmed_bad


def test_the_ledger_remembers_fewer_than_ten_thousand_events() -> None:
    known = IsolationLedger(
        refusals=dict.fromkeys(range(9_998), 1), confirmed_bad=frozenset(range(9_998))
    )
    known = known.with_refusal(-1).with_failed_alone(-1).with_pass(1.0, None)
    assert (len(known.refusals), len(known.confirmed_bad)) == (9_999, 9_999)
    full = known.with_refusal(-2).with_failed_alone(-2).with_pass(2.0, None)
    assert (full.refusals, full.confirmed_bad) == ({}, {-2})


def troubled(rounds: int, **answer: object) -> Breaker:
    """A breaker whose probes failed in so many rounds, the trip included."""
    breaker = fresh()
    for _ in range(rounds):
        breaker = after(replace(breaker, probes_left=0), Signal.UNREACHED, **answer)
    return breaker


def test_events_that_failed_before_leave_the_senders_of_others_free() -> None:
    breaker = passed(fresh(senders=4))
    assert breaker.wait_seconds(0.0, InFlight(others=3, isolated=64)) == 0.0
    assert breaker.wait_seconds(0.0, InFlight(others=4)) is None
    assert breaker.wait_seconds(0.0, InFlight(isolated=65)) is None
    alone = breaker.with_hung(0.0, 1.0)
    assert alone.wait_seconds(0.0, InFlight(others=31)) == 0.0
    assert alone.wait_seconds(0.0, InFlight(others=32)) is None


def test_a_round_of_probes_uses_each_sender_and_none_of_the_last_trouble() -> None:
    waiting = replace(troubled(1), probes_left=8, reopens_at=5.0)
    hanging = InFlight(others=9, isolated=9, others_now=2, isolated_now=1)
    assert waiting.wait_seconds(2.0, hanging) == 3.0
    assert waiting.wait_seconds(2.0, replace(hanging, isolated_now=2)) is None
    alone = replace(waiting, narrow=True)
    assert alone.wait_seconds(2.0, InFlight(others=31, others_now=9)) == 3.0
    assert alone.wait_seconds(2.0, InFlight(others=32)) is None
    spent = waiting.began(isolated=False)
    assert (spent.probes_left, waiting.probes_left) == (7, 8)
    assert replace(waiting, probes_left=0).began(isolated=True).probes_left == 0
    assert passed(fresh()).began(isolated=True).probes_left == 1


def test_probes_alternate_between_the_newest_and_the_oldest_and_later_between_isolated_ones() -> (
    None
):
    probes = [troubled(rounds).permit(IDLE) for rounds in range(1, 7)]
    assert [probe.fresh_share for probe in probes] == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    first, last = Isolated.FIRST, Isolated.LAST
    assert [probe.isolated for probe in probes] == [last, last, last, first, last, first]
    assert {(probe.max_bytes, probe.state, probe.singly) for probe in probes} == {
        (1 << 20, BreakerState.BACKING_OFF, False)
    }
    wide = replace(troubled(4), widened=True, probes_left=3).permit(IDLE)
    assert (wide.fresh_share, wide.isolated) == (1.0, last)
    refusing = replace(troubled(4), refusing=True).permit(IDLE)
    assert (refusing.fresh_share, refusing.isolated) == (0.0, last)


def test_isolated_events_and_others_take_turns() -> None:
    one, first, last = InFlight(isolated=1, isolated_now=1), Isolated.FIRST, Isolated.LAST
    healthy = passed(fresh())
    assert healthy.permit(one).isolated is first
    assert healthy.began(isolated=True).permit(one).isolated is last
    assert healthy.began(isolated=False).permit(one).isolated is first
    assert healthy.permit(InFlight(isolated=4)).isolated is Isolated.NONE
    recovering = passed(troubled(1))
    assert recovering.permit(IDLE).isolated is last
    assert recovering.permit(one).isolated is Isolated.NONE
    assert recovering.wait_seconds(0.0, InFlight(others=1)) == 0.0
    assert recovering.wait_seconds(0.0, InFlight(others=1, others_now=1)) is None
    found = knowing(recovering, found_at=0.0)
    assert found.permit(one).isolated is first
    assert (healthy.permit(IDLE).fresh_share, recovering.permit(IDLE).fresh_share) == (0.2, 0.5)
    states = healthy.permit(IDLE).state, recovering.permit(IDLE).state
    assert states == (BreakerState.HEALTHY, BreakerState.RECOVERING)


def test_while_events_go_alone_a_claim_takes_as_many_as_may_begin() -> None:
    alone = passed(fresh()).with_hung(0.0, 1.0)
    free = [alone.permit(InFlight(others=others)).max_events for others in (0, 30, 31, 32)]
    assert free == [32, 2, 1, 1]
    waiting = replace(alone, state=BreakerState.BACKING_OFF).permit(IDLE)
    assert (waiting.max_events, waiting.singly) == (1, True)


def test_recovery_doubles_the_events_and_says_why_until_batches_are_full() -> None:
    breaker = passed(troubled(3, reason="500 oh"), 10.0)
    assert (breaker.state, breaker.reason) == (BreakerState.RECOVERING, "500 oh")
    assert (breaker.failures, breaker.reopens_at, breaker.refusing) == (0, 0.0, False)
    assert breaker.permit(IDLE).max_events == 2
    assert passed(breaker, 10.0).permit(IDLE).max_events == 4
    drained = passed(breaker, 10.0, drained=True)
    assert (drained.state, drained.reason) == (BreakerState.HEALTHY, "")
    assert drained.permit(IDLE).max_events == 500


def failing_on(breaker: Breaker, signal: Signal = Signal.TROUBLE, **answer: object) -> Breaker:
    """One more failure, which is none in a row."""
    return after(replace(breaker, streak=passed(fresh()).streak), signal, **answer)


def test_batches_shrink_to_half_once_most_of_the_last_twenty_failed() -> None:
    breaker, sizes = passed(fresh()), []
    for _ in range(64):
        breaker = failing_on(breaker)
        sizes.append(breaker.permit(IDLE).max_events)
    assert sizes == [500] * 27 + [250] * 18 + [125] * 18 + [62]


def test_a_pass_puts_off_that_batches_shrink_and_parts_and_refusals_shrink_none() -> None:
    breaker, sizes = passed(fresh()), []
    for _ in range(27):
        breaker = failing_on(breaker)
    breaker = passed(breaker)
    for _ in range(5):
        breaker = failing_on(failing_on(breaker, again=True), Signal.REFUSED)
    for _ in range(3):
        breaker = failing_on(breaker)
        sizes.append(breaker.permit(IDLE).max_events)
    assert sizes == [500, 500, 250]


def test_the_view_of_an_event_is_that_before_its_answer() -> None:
    known = knowing(
        passed(fresh(), 1.0, size=9), confirmed_bad=frozenset({7}), refusals={7: 2}, found_at=1.0
    )
    permit = known.permit(IDLE)
    seen = view(known.forget(7), known, permit, 7, 60.9)
    assert seen == BreakerView(confirmed_bad=True, refusals=2, bad_events=True, passed_size=9)
    other = view(known, known, permit, 8, 61.0)
    assert other == BreakerView(passed_size=9)
    assert view(known, known, permit, None, 61.0) == other
    assert not view(known.with_pause(paused=True), known, permit, 7, 1.0).resend
    tripped = view(known.with_wait(BreakerState.BACKING_OFF, "", 9.0), known, permit, 7, 1.0)
    assert (tripped.resend, tripped.refusing, tripped.confirmed_bad) == (False, True, False)
    waiting = replace(known, state=BreakerState.BACKING_OFF)
    seen = view(waiting, waiting, permit, 7, 1.0)
    assert (seen.resend, seen.refusing, seen.confirmed_bad) == (False, False, False)
    recovered = replace(known, epoch=9)
    seen = view(recovered, recovered, permit, 7, 1.0)
    assert (seen.resend, seen.refusing) == (False, False)
    assert view(known.with_hung(1.0, 1.0), known, permit, 7, 1.0).narrow


def test_a_settled_event_is_forgotten_and_no_other() -> None:
    both = frozenset({7, 8})
    known = knowing(fresh(), failed_alone=both, confirmed_bad=both, refusals={7: 1, 8: 2})
    eight = frozenset({8})
    assert known.forget(7) == knowing(
        fresh(), failed_alone=eight, confirmed_bad=eight, refusals={8: 2}
    )


def test_an_isolated_event_that_passes_clears_every_other() -> None:
    both = frozenset({7, 8})
    suspecting = knowing(passed(fresh()), failed_alone=both, refusals={7: 1, 8: 2}, found_at=0.0)
    healed = passed(knowing(suspecting, confirmed_bad=both), lone=7, known_isolated=True)
    assert healed.ledger == IsolationLedger(refusals={8: 2})
    confirmed = passed(suspecting, 5.0, lone=7).ledger
    assert (confirmed.confirmed_bad, confirmed.found_at) == (both, 5.0)
    assert confirmed.failed_alone == frozenset()
