"""The ledger of isolated events: who failed alone, who is confirmed bad, who is forgotten."""

from __future__ import annotations

from service.relay.evidence import IsolationLedger

EMPTY = IsolationLedger()
CONFIRMED = EMPTY.with_failed_alone(7).with_pass(5.0, None)


def test_a_refused_event_is_confirmed_by_what_passes_and_stays_so() -> None:
    judged = EMPTY.with_judged(7)
    assert (judged.failed_alone, judged.confirmed_bad) == ({7}, set())
    confirmed = judged.with_pass(5.0, None)
    assert (confirmed.failed_alone, confirmed.confirmed_bad) == (set(), {7})
    assert confirmed.with_judged(7) == confirmed
    other = confirmed.with_judged(8)
    assert (other.failed_alone, other.confirmed_bad) == ({8}, {7})


def test_refusals_are_counted_for_each_event() -> None:
    ledger = EMPTY.with_refusal(7).with_refusal(7).with_refusal(8)
    assert ledger.refusals == {7: 2, 8: 1}


def test_an_event_that_passes_alone_after_all_clears_everyone() -> None:
    ledger = CONFIRMED.with_failed_alone(8).with_refusal(8).with_refusal(9)
    healed = ledger.with_pass(6.0, 9)
    assert (healed.failed_alone, healed.confirmed_bad, healed.found_at) == (set(), set(), None)
    assert healed.refusals == {8: 1}


def test_a_settled_event_is_forgotten_and_no_other() -> None:
    ledger = CONFIRMED.with_refusal(7).with_refusal(8)
    ledger = ledger.with_judged(8).with_judged(9)
    left = ledger.without(7)
    assert (left.confirmed_bad, left.failed_alone, left.refusals) == (set(), {8, 9}, {8: 1})
    left = ledger.without(8)
    assert (left.confirmed_bad, left.failed_alone, left.refusals) == ({7}, {9}, {7: 1})


def test_a_smaller_request_that_passes_confirms_that_one_was_too_large() -> None:
    ledger = EMPTY.with_failed_alone(7).with_failed_alone(8).with_smaller_pass(7)
    assert (ledger.failed_alone, ledger.confirmed_bad) == ({8}, {7})


def test_an_event_was_found_lately_for_less_than_the_given_seconds() -> None:
    assert not EMPTY.found_lately(5.0, 60.0)
    assert CONFIRMED.found_lately(64.9, 60.0)
    assert not CONFIRMED.found_lately(65.0, 60.0)


def test_trouble_that_others_share_proves_nothing_about_an_event() -> None:
    failed = EMPTY.with_failed_alone(7)
    shared = failed.with_trouble(frozenset(), shared=True, lasts=False)
    assert shared.failed_alone == frozenset()
    alone = failed.with_trouble(frozenset(), shared=False, lasts=False)
    assert alone.failed_alone == {7}


def test_who_asked_for_time_is_remembered_until_others_do() -> None:
    asked = EMPTY.with_trouble(frozenset({1}), shared=False, lasts=False)
    again = asked.with_trouble(frozenset(), shared=False, lasts=False)
    assert again.asked_for_time == {1}
    assert again.with_trouble(frozenset({2}), shared=False, lasts=False).asked_for_time == {2}


def test_a_retry_after_is_trusted_again_when_the_trouble_lasts() -> None:
    distrusting = IsolationLedger(distrusts_retry_after=True)
    trouble = distrusting.with_trouble(frozenset(), shared=False, lasts=False)
    assert trouble.distrusts_retry_after
    assert not trouble.with_trouble(frozenset(), shared=False, lasts=True).distrusts_retry_after


def test_the_ledger_stays_small() -> None:
    many = IsolationLedger(
        confirmed_bad=frozenset(range(9_998)), refusals=dict.fromkeys(range(9_998), 1)
    )
    assert len(many.with_refusal(-1).refusals) == 9_999
    assert many.with_refusal(-1).with_refusal(-2).refusals == {}
    full = many.with_failed_alone(-1).with_pass(1.0, None)
    assert len(full.confirmed_bad) == 9_999
    assert full.with_failed_alone(-2).with_pass(1.0, None).confirmed_bad == {-2}
