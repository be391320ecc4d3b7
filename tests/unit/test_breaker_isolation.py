"""The parts of the breaker: which event is the cause, what a batch may hold, how a pause ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.inngest.send_result import Signal
from service.outbox.model import Isolated
from service.relay.breaker_policy import BreakerPolicy
from service.relay.breaker_result import view
from service.relay.sends import BreakerState, InFlight
from tests.support.breakers import IDLE, after, fresh, passed

POLICY = BreakerPolicy()


def test_a_batch_that_is_too_large_counts_only_where_its_size_has_passed() -> None:
    breaker = passed(fresh(), size=1000)
    for _ in range(40):
        breaker = after(breaker, Signal.TOO_LARGE, size=1001)
    assert breaker.streak.count == 0
    assert after(breaker, Signal.TOO_LARGE, size=1000).streak.count == 1


def test_a_size_that_is_too_large_is_halved_and_tried_again_much_later() -> None:
    breaker = after(passed(fresh()), Signal.TOO_LARGE, size=1000)
    assert breaker.limit.size == 500
    for _ in range(POLICY.relax_after_sends):
        breaker = passed(breaker)
        assert breaker.limit.size == 500
    assert passed(breaker).limit.size == 1000


def test_one_event_that_is_too_large_limits_no_batch_once_it_is_confirmed() -> None:
    breaker = after(passed(fresh(), size=400), Signal.TOO_LARGE, lone=7, size=900)
    assert breaker.limit.size == 450
    breaker = passed(breaker, size=400)
    breaker = after(breaker, Signal.TOO_LARGE, lone=7, known_isolated=True, size=900)
    assert breaker.limit.size == 1 << 20


def test_a_retry_after_trips_beside_what_passes_and_is_trusted_for_seconds() -> None:
    busy = {"retry_after_seconds": 60.0, "seqs": frozenset({1, 2})}
    breaker = after(passed(fresh()), Signal.BUSY, **busy)
    assert (breaker.state, breaker.reopens_at) == ("backing_off", POLICY.trusted_retry_after)
    # The same events again, though another has passed: it is not Inngest.
    breaker = passed(breaker, 5.0)
    assert not after(breaker, Signal.BUSY, 5.0, **busy).state.waits
    other = {"retry_after_seconds": 60.0, "seqs": frozenset({3})}
    assert after(breaker, Signal.BUSY, 5.0, **other).state.waits


def test_an_isolated_event_that_asks_for_time_stops_nothing_nor_do_others_later() -> None:
    breaker = passed(fresh())
    busy = {"retry_after_seconds": 60.0, "lone": 7, "known_isolated": True}
    breaker = passed(after(breaker, Signal.BUSY, **busy))
    breaker = after(breaker, Signal.BUSY, **busy)
    assert breaker.state is BreakerState.HEALTHY
    assert breaker.ledger.distrusts_retry_after
    assert after(breaker, Signal.BUSY, retry_after_seconds=60.0).state is BreakerState.HEALTHY


def test_isolated_events_wait_for_no_sender_and_take_none() -> None:
    breaker = fresh(senders=1)
    assert breaker.wait_seconds(0, InFlight(isolated=1, isolated_now=1)) == 0
    assert breaker.wait_seconds(0, InFlight(others=1, others_now=1)) is None
    assert breaker.permit(InFlight(isolated=1)).isolated is Isolated.NONE
    flooded = POLICY.resends_per_sender + 1
    assert breaker.wait_seconds(0, InFlight(isolated=flooded)) is None


def test_isolated_events_and_others_take_turns() -> None:
    breaker = fresh()
    assert breaker.permit(IDLE).isolated is Isolated.FIRST
    assert breaker.began(isolated=True).permit(IDLE).isolated is Isolated.LAST
    assert breaker.began(isolated=False).permit(IDLE).isolated is Isolated.FIRST


def test_until_one_is_confirmed_isolated_events_are_sent_one_at_a_time() -> None:
    failed = after(passed(fresh()), Signal.TROUBLE, lone=7, known_isolated=True)
    assert failed.permit(InFlight(isolated=1)).isolated is Isolated.NONE
    confirmed = passed(failed)
    assert confirmed.permit(InFlight(isolated=1)).isolated is Isolated.FIRST


def test_in_a_long_outage_isolated_events_and_the_newest_ask_in_turns() -> None:
    breaker, asked = fresh(), []
    for _ in range(POLICY.widest_rounds + 6):
        breaker = after(replace(breaker, probes_left=0), Signal.TROUBLE)
        permit = breaker.permit(IDLE)
        asked.append((permit.isolated, permit.fresh_share))
    last, first = Isolated.LAST, Isolated.FIRST
    assert asked[: POLICY.widest_rounds] == [(last, 1), (last, 0)] * (POLICY.widest_rounds // 2)
    assert asked[POLICY.widest_rounds :] == [(last, 1), (first, 0)] * 3


def test_rounds_of_probes_widen_for_a_while_when_nothing_passes() -> None:
    breaker, widths = fresh(), []
    for _ in range(POLICY.widest_rounds + 6):
        breaker = after(replace(breaker, probes_left=0), Signal.TROUBLE)
        widths.append(breaker.probes_left)
    wide, few = [POLICY.max_blind_probes] * (POLICY.widest_rounds - 3), [1] * 6
    assert widths == [1, 1, POLICY.first_probes, *wide, *few]


@pytest.mark.parametrize("signal", [Signal.BUSY, Signal.UNREACHED, Signal.MISCONFIGURED])
def test_one_event_asks_where_no_event_can_be_the_cause(signal: Signal) -> None:
    breaker = fresh()
    for _ in range(10):
        breaker = after(replace(breaker, probes_left=0), signal)
        assert breaker.probes_left == 1


def test_trouble_that_returns_while_recovering_may_be_the_events() -> None:
    breaker = passed(after(fresh(), Signal.TROUBLE))
    assert (breaker.state, breaker.ledger.found_at) == ("recovering", None)
    for _ in range(POLICY.failures_while_passing):
        breaker = after(breaker, Signal.TROUBLE)
    assert breaker.state.waits
    assert breaker.probes_left == POLICY.first_probes


def test_only_one_that_fails_while_others_pass_is_confirmed_bad() -> None:
    breaker = passed(fresh())
    alone = {"lone": 7, "known_isolated": True}
    failed = after(breaker, Signal.TROUBLE, **alone)
    assert (failed.state, failed.ledger.failed_alone) == ("healthy", {7})
    assert not failed.ledger.confirmed_bad
    assert passed(failed).ledger.confirmed_bad == {7}
    assert passed(failed, **alone).ledger.confirmed_bad == frozenset()
    again = after(passed(failed), Signal.TROUBLE, **alone)
    assert (again.ledger.confirmed_bad, again.ledger.failed_alone) == (frozenset(), {7})
    assert view(again, passed(failed), again.permit(IDLE), 7, 0.0).confirmed_bad


def test_trouble_of_others_and_an_isolated_event_that_passes_confirm_nothing() -> None:
    alone = {"lone": 7, "known_isolated": True}
    failed = after(passed(fresh()), Signal.TROUBLE, **alone)
    for _ in range(POLICY.failures_while_passing):
        failed = after(failed, Signal.TROUBLE)
    assert failed.state.waits
    assert not passed(failed).ledger.confirmed_bad
    bad = passed(after(passed(fresh()), Signal.TROUBLE, **alone))
    healed = passed(bad, lone=8, known_isolated=True)
    assert (healed.ledger.confirmed_bad, healed.ledger.found_at) == (frozenset(), None)


def test_probes_widen_where_bad_events_are_about() -> None:
    bad = passed(after(passed(fresh()), Signal.TROUBLE, lone=7, known_isolated=True))
    for _ in range(POLICY.failures_while_passing):
        bad = after(bad, Signal.TROUBLE)
    assert bad.probes_left == POLICY.first_probes
    wider = after(replace(bad, probes_left=0), Signal.TROUBLE)
    assert wider.probes_left == 2 * POLICY.first_probes
    kept = after(bad, Signal.TROUBLE)
    assert (kept.epoch, kept.failures) == (bad.epoch, bad.failures)


def test_a_batch_shrinks_only_when_most_of_the_last_sends_failed() -> None:
    breaker = passed(fresh())
    for turn in range(200):
        breaker = after(breaker, Signal.TROUBLE) if turn % 2 else passed(breaker)
        assert breaker.limit.events == 500
    for _ in range(POLICY.failures_while_passing - 2):
        breaker = after(breaker, Signal.TROUBLE)
    assert breaker.limit.events == 250
    assert passed(breaker).limit.events == 500


def test_after_trouble_a_batch_doubles_with_each_that_passes() -> None:
    breaker, seen = after(fresh(), Signal.TROUBLE), []
    for _ in range(9):
        breaker = passed(breaker)
        seen.append((breaker.state.value, breaker.limit.events))
    sizes = [2, 4, 8, 16, 32, 64, 128, 256]
    assert seen == [*(("recovering", size) for size in sizes), ("healthy", 500)]
    assert passed(after(fresh(), Signal.TROUBLE), drained=True).state is BreakerState.HEALTHY
