"""Evidence of the breaker: which failures count, against Inngest or an event, and what follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inngest_outbox.inngest.send_result import Signal
from inngest_outbox.relay.breaker import Breaker
from inngest_outbox.relay.breaker_policy import BreakerPolicy, Cause
from inngest_outbox.relay.breaker_result import view, with_result
from inngest_outbox.relay.sends import Answered, BreakerState
from tests.support.breakers import IDLE, after, fresh, knowing, passed

SEVEN = frozenset({7})


def failed_round(breaker: Breaker, signal: Signal, now: float, **answer: object) -> Breaker:
    """The breaker after the last probe of a round failed."""
    return after(replace(breaker, probes_left=0), signal, now, **answer)


def refused_in_a_row(breaker: Breaker, now: float) -> Breaker:
    for seq in range(8):
        breaker = failed_round(breaker, Signal.REFUSED, now, lone=seq, newly_refused=seq)
    return breaker


def test_a_late_retry_after_is_trusted_for_five_seconds_and_only_while_backing_off() -> None:
    troubled = after(fresh(), Signal.TROUBLE)
    old, late = fresh().permit(IDLE), Answered(Signal.BUSY, 0.0, retry_after_seconds=60.0)
    for asked_seconds, waited in ((3.0, 3.0), (60.0, 5.0)):
        answered = replace(late, retry_after_seconds=asked_seconds)
        asked = with_result(troubled, answered, permit=old, now=1.0, jitter=0.5)
        assert asked.wait_seconds(1.0, IDLE) == waited
    recovering = passed(troubled)
    assert with_result(recovering, late, permit=old, now=1.0, jitter=0.5) == recovering


def test_a_probe_that_inngest_judges_lets_another_go_at_once_up_to_eight_in_a_row() -> None:
    troubled = after(fresh(), Signal.TROUBLE)
    for seq in range(7):
        troubled = failed_round(troubled, Signal.REFUSED, 1.0, lone=seq, newly_refused=seq)
        assert (troubled.failures, troubled.wait_seconds(1.0, IDLE)) == (1, 0.0)
    tripped = failed_round(troubled, Signal.REFUSED, 1.0, lone=7, newly_refused=7)
    assert (tripped.failures, tripped.refusing) == (2, True)
    bad = knowing(tripped, confirmed_bad=SEVEN)
    again = failed_round(bad, Signal.REFUSED, 1.0, lone=7, known_isolated=True)
    assert again.failures == 2
    assert failed_round(bad, Signal.REFUSED, 1.0, lone=6, known_isolated=True).failures == 3


def test_a_refusal_suspects_the_event_that_it_names() -> None:
    breaker = passed(fresh())
    first = after(breaker, Signal.REFUSED, newly_refused=7).ledger
    assert (first.failed_alone, first.refusals) == (SEVEN, {})
    assert after(breaker, Signal.REFUSED).ledger == breaker.ledger
    alone = after(breaker, Signal.REFUSED, lone=7, known_isolated=True)
    assert (alone.ledger.failed_alone, alone.ledger.refusals) == (SEVEN, {7: 1})
    twice = after(passed(alone), Signal.REFUSED, lone=7, known_isolated=True).ledger
    assert (twice.failed_alone, twice.confirmed_bad, twice.refusals) == (frozenset(), SEVEN, {7: 2})


def test_while_every_event_is_refused_only_refusals_of_a_confirmed_one_count() -> None:
    refusing = knowing(refused_in_a_row(passed(fresh()), 1.0), confirmed_bad=SEVEN, refusals={})
    for lone, counted in ((7, {7: 1}), (6, {})):
        judged = after(refusing, Signal.REFUSED, 1.0, lone=lone, known_isolated=True)
        assert judged.ledger.refusals == counted
    assert not view(passed(refusing, 2.0), refusing, refusing.permit(IDLE), 7, 2.0).refusing


def test_an_event_that_fails_again_alone_is_suspected_and_has_to_be_confirmed_anew() -> None:
    breaker = passed(fresh())
    assert not after(breaker, Signal.TROUBLE, lone=7).ledger.failed_alone
    for known in ({"again": True}, {"known_isolated": True}):
        assert after(breaker, Signal.TROUBLE, lone=7, **known).ledger.failed_alone == SEVEN
    confirmed = knowing(breaker, confirmed_bad=SEVEN)
    again = after(confirmed, Signal.TROUBLE, lone=7, known_isolated=True).ledger
    assert (again.failed_alone, again.confirmed_bad) == (SEVEN, frozenset())


def test_failures_of_isolated_events_count_only_where_none_was_found_bad_lately() -> None:
    found = knowing(passed(fresh(), 10.0), found_at=10.0)
    counts = [
        after(found, Signal.TROUBLE, now, lone=7, known_isolated=isolated).streak.count
        for now, isolated in ((69.9, True), (70.0, True), (69.9, False))
    ]
    assert counts == [0, 1, 1]
    waiting = knowing(after(fresh(), Signal.TROUBLE), found_at=1.0)
    probed = failed_round(waiting, Signal.TROUBLE, 2.0, lone=7, known_isolated=True)
    assert probed.failures == 2
    hung = [
        after(passed(fresh(), 10.0), Signal.TROUBLE, now, known_isolated=isolated, hung=True)
        for now, isolated in ((69.9, True), (70.0, True), (69.9, False))
    ]
    assert [breaker.streak.count for breaker in hung] == [0, 1, 1]


def test_a_batch_that_is_too_large_counts_only_if_one_of_its_size_has_passed() -> None:
    breaker = passed(fresh(), size=900)
    sizes = {
        size: after(breaker, Signal.TOO_LARGE, size=size).streak.count for size in (899, 900, 901)
    }
    assert sizes == {899: 1, 900: 1, 901: 0}
    assert after(breaker, Signal.TOO_LARGE, size=901, lone=7).streak.count == 1


@pytest.mark.parametrize(("now", "failures"), [(10.9, 32), (11.0, 8)])
def test_a_pass_counts_as_lately_for_a_second(now: float, failures: int) -> None:
    breaker = passed(fresh(), 10.0)
    for _ in range(failures - 1):
        breaker = after(breaker, Signal.TROUBLE, now)
        assert breaker.state is BreakerState.HEALTHY
    assert after(breaker, Signal.TROUBLE, now).state is BreakerState.BACKING_OFF


def test_a_failure_that_does_not_count_trips_nothing() -> None:
    breaker = after(after(passed(fresh()), Signal.TROUBLE, 5.0), Signal.TROUBLE, 5.5)
    found = knowing(breaker, found_at=6.9)
    uncounted = after(found, Signal.TROUBLE, 7.0, lone=7, known_isolated=True)
    assert uncounted.state is BreakerState.HEALTHY
    assert after(found, Signal.TROUBLE, 7.0).state is BreakerState.BACKING_OFF


def test_32_requests_that_hang_beside_others_trip_and_32_events_probe_alone() -> None:
    breaker = passed(fresh(), 10.0)
    for _ in range(31):
        breaker = after(breaker, Signal.TROUBLE, 20.0, hung=True)
        assert breaker.state is BreakerState.HEALTHY
    tripped = after(breaker, Signal.TROUBLE, 20.0, hung=True)
    assert (tripped.state, tripped.probes_left) == (BreakerState.BACKING_OFF, 32)
    assert tripped.permit(IDLE).singly
    lately = passed(fresh(), 10.0)
    hung = [after(lately, Signal.TROUBLE, now, hung=True).permit(IDLE) for now in (69.9, 70.0)]
    assert [permit.singly for permit in hung] == [True, False]
    later = after(breaker, Signal.TROUBLE, 70.0, hung=True)
    assert (later.state, later.probes_left) == (BreakerState.BACKING_OFF, 1)
    assert not later.permit(IDLE).singly


def test_a_retry_after_trips_once_for_the_same_events() -> None:
    def asked(breaker: Breaker, seq: int, **answer: object) -> Breaker:
        answer = {"retry_after_seconds": 60.0, "seqs": frozenset({seq}), **answer}
        return after(breaker, Signal.BUSY, 1.0, **answer)

    healthy = passed(fresh())
    assert asked(healthy, 7, again=True).state is BreakerState.HEALTHY
    tripped = asked(healthy, 7)
    assert tripped.wait_seconds(1.0, IDLE) == 5.0
    assert failed_round(tripped, Signal.BUSY, 6.0, retry_after_seconds=60.0).reopens_at == 21.0
    recovered = passed(tripped, 1.0, drained=True)
    assert asked(recovered, 7).state is BreakerState.HEALTHY
    assert asked(recovered, 8).state is BreakerState.BACKING_OFF
    tripped = failed_round(tripped, Signal.TROUBLE, 6.0, seqs=frozenset({8}))
    assert asked(passed(tripped, 1.0, drained=True), 7).state is BreakerState.HEALTHY


def test_a_bad_event_with_a_retry_after_is_not_obeyed_until_trouble_lasts() -> None:
    confirmed = knowing(passed(fresh()), confirmed_bad=SEVEN, found_at=0.0)
    isolated = {"lone": 7, "known_isolated": True}
    assert not after(confirmed, Signal.TROUBLE, **isolated).ledger.distrusts_retry_after
    other = after(passed(fresh()), Signal.BUSY, retry_after_seconds=60.0, **isolated)
    assert not other.ledger.distrusts_retry_after
    bad = after(confirmed, Signal.BUSY, retry_after_seconds=60.0, **isolated)
    assert after(bad, Signal.BUSY, retry_after_seconds=60.0).state is BreakerState.HEALTHY
    tripped = bad.with_wait(BreakerState.BACKING_OFF, "", 9.0)
    assert tripped.ledger.distrusts_retry_after
    assert not failed_round(tripped, Signal.TROUBLE, 9.0).ledger.distrusts_retry_after


def test_trouble_that_others_share_clears_who_is_suspected() -> None:
    suspecting = knowing(fresh(), failed_alone=SEVEN)
    assert not after(suspecting, Signal.TROUBLE).ledger.failed_alone
    alone = after(suspecting, Signal.TROUBLE, lone=7, known_isolated=True)
    assert alone.state is BreakerState.BACKING_OFF
    assert alone.ledger.failed_alone == SEVEN
    refusing = refused_in_a_row(suspecting, 1.0)
    assert refusing.ledger.failed_alone >= SEVEN


def test_trouble_amid_recovery_may_be_bad_events_so_eight_probe() -> None:
    recovering = passed(after(fresh(), Signal.TROUBLE))
    tripped = after(after(recovering, Signal.TROUBLE, 4.0), Signal.TROUBLE, 5.0)
    assert (tripped.probes_left, tripped.ledger.found_at) == (8, 5.0)
    shares = []
    for _ in range(4):
        shares.append(tripped.permit(IDLE).fresh_share)
        tripped = tripped.began(isolated=False)
    assert shares == [1.0, 0.0, 1.0, 0.0]
    for now in range(10):
        tripped = failed_round(tripped, Signal.TROUBLE, float(now))
    assert tripped.reopens_at == 9.5


@pytest.mark.parametrize(("signal", "probes"), [(Signal.TROUBLE, 8), (Signal.UNREACHED, 1)])
def test_rounds_widen_only_where_events_may_be_the_cause(signal: Signal, probes: int) -> None:
    breaker = after(fresh(), signal)
    for _ in range(2):
        breaker = failed_round(breaker, signal, 1.0)
    assert (breaker.failures, breaker.probes_left) == (3, probes)


def test_five_minutes_of_refusals_begin_again_with_a_pass_and_with_other_trouble() -> None:
    first = refused_in_a_row(passed(fresh()), 100.0)
    for between in (passed(first, 200.0, drained=True), failed_round(first, Signal.BUSY, 200.0)):
        refusing = refused_in_a_row(between, 300.0)
        assert not refusing.wants_witness(599.0)
        assert refusing.wants_witness(600.0)


def test_a_request_in_flight_that_passes_ends_no_trouble_of_two_failures() -> None:
    healthy = passed(fresh())
    tripped = after(after(healthy, Signal.TROUBLE, 5.0), Signal.TROUBLE, 6.0)
    beside = with_result(
        tripped, Answered(Signal.PASSED, 5.0), permit=healthy.permit(IDLE), now=6.0, jitter=0.5
    )
    assert beside.state is BreakerState.BACKING_OFF


POLICY = BreakerPolicy(
    first_backoff=1.0,
    max_backoff=10.0,
    max_backoff_among_bad=3.0,
    min_backoff=0.5,
    max_retry_after=100.0,
    trusted_retry_after=20.0,
    blind_retry_after=40.0,
    first_probes=2,
    max_probes=9,
    max_blind_probes=5,
    widen_after=3,
    widest_rounds=6,
)

GROWING = [1, 2, 4, 8, 10, 10, 10, 10]
BOUNDED = [1, 2, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("cause", "longest"),
    [
        (Cause.UNKNOWN, GROWING),
        (Cause.INNGEST, GROWING),
        (Cause.BAD_EVENTS, [*BOUNDED, 3, 3]),
        (Cause.JUDGED, [*BOUNDED, 10, 10]),
    ],
)
def test_the_longest_wait_doubles_and_is_short_among_bad_events(
    cause: Cause, longest: list[float]
) -> None:
    for failures, most in enumerate(longest):
        for jitter in (0.5, 0.75):
            assert POLICY.backoff_seconds(failures, jitter, cause) == most * jitter
    assert POLICY.backoff_seconds(1000, 0.5) == 5


@pytest.mark.parametrize(
    ("cause", "rounds"),
    [
        (Cause.UNKNOWN, [1, 1, 1, 2, 4, 5, 1, 1]),
        (Cause.INNGEST, [1, 1, 1, 1, 1, 1, 1, 1]),
        (Cause.BAD_EVENTS, [2, 4, 8, 9, 9, 9, 9, 9]),
        (Cause.JUDGED, [2, 4, 8, 9, 9, 9, 1, 1]),
    ],
)
def test_rounds_of_probes_widen_by_cause(cause: Cause, rounds: list[int]) -> None:
    assert [POLICY.probes(failures, cause) for failures in range(8)] == rounds
    assert BreakerPolicy().probes(1000, Cause.BAD_EVENTS) == 32
