"""Each state of the breaker: how long it waits, what it permits, how it is entered and left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.outbox.model import Isolated
from service.relay.breaker import Breaker
from service.relay.breaker_policy import BreakerPolicy
from service.relay.evidence import BatchLimit, FailureStreak, IsolationLedger
from service.relay.sends import BreakerState, InFlight
from tests.support.breakers import IDLE, changes, fresh, passed

HEALTHY, RECOVERING = BreakerState.HEALTHY, BreakerState.RECOVERING
BACKING_OFF, MISCONFIGURED = BreakerState.BACKING_OFF, BreakerState.MISCONFIGURED
FIRST, LAST, NONE = Isolated.FIRST, Isolated.LAST, Isolated.NONE
WAITING = fresh().with_wait(BACKING_OFF, "why", 20.0)
RECOVERED = replace(passed(WAITING), reason="why")


def test_a_fresh_breaker_is_healthy_at_full_width_and_knows_nothing() -> None:
    policy = BreakerPolicy(fresh_share=0.1)
    assert Breaker.fresh(500, 1000, 4, policy) == Breaker(
        policy=policy,
        senders=4,
        limit=BatchLimit.full(500, 1000),
        streak=FailureStreak(),
        ledger=IsolationLedger(),
        state=HEALTHY,
        reason="",
        refusing=False,
        widened=False,
        failures=0,
        probes_left=1,
        reopens_at=0.0,
        epoch=0,
        trouble_epoch=0,
        provisional=False,
        paused=False,
        isolated_turn=True,
    )
    assert fresh().policy == BreakerPolicy()


WAITS = [
    # in which state, what is in flight, seconds until a permit at 15
    (fresh(), InFlight(others=3), 0.0),
    (fresh(), InFlight(others=4), None),
    (fresh(), InFlight(isolated=64), 0.0),
    (fresh(), InFlight(isolated=65), None),
    (fresh().with_pause(paused=True), IDLE, None),
    (RECOVERED, InFlight(others=9, isolated_now=9), 0.0),
    (RECOVERED, InFlight(others=1, others_now=1), None),
    (WAITING, IDLE, 5.0),
    (WAITING, InFlight(others=9, isolated=9), 5.0),
    (WAITING, InFlight(others_now=1), 5.0),
    (WAITING, InFlight(others_now=1, isolated_now=2), 5.0),
    (WAITING, InFlight(others_now=1, isolated_now=3), None),
    (WAITING, InFlight(others_now=4), None),
    (replace(WAITING, probes_left=0), IDLE, 5.0),
    (replace(WAITING, probes_left=0), InFlight(others_now=1), None),
    (replace(WAITING, probes_left=0), InFlight(isolated_now=1), None),
    (WAITING.asking_at(14.0), IDLE, 0.0),
    (WAITING.asking_at(16.0), IDLE, 1.0),
    (WAITING.asking_at(21.0), IDLE, 5.0),
]


@pytest.mark.parametrize(("breaker", "sends", "seconds"), WAITS)
def test_how_long_a_permit_is_waited_for(
    breaker: Breaker, sends: InFlight, seconds: float | None
) -> None:
    assert breaker.wait_seconds(15.0, sends) == seconds


def test_a_permit_is_for_the_batch_of_its_state_and_for_its_epoch() -> None:
    for breaker, events, share in [(fresh(), 500, 0.2), (RECOVERED, 2, 0.5), (WAITING, 1, 1.0)]:
        permit = replace(breaker, epoch=7).permit(IDLE)
        assert (permit.max_events, permit.fresh_share) == (events, share)
        assert (permit.max_bytes, permit.epoch, permit.state) == (1 << 20, 7, breaker.state)


def test_a_permit_is_current_in_its_epoch_while_delivery_is_not_paused() -> None:
    permit = WAITING.permit(IDLE)
    assert WAITING.is_current(permit)
    assert not WAITING.with_wait(BACKING_OFF, "why", 20.0).is_current(permit)
    assert not WAITING.with_pause(paused=True).is_current(permit)


@pytest.mark.parametrize(
    ("failures", "probes_left", "widened", "newest"),
    [
        (1, 1, False, 1.0),
        (2, 1, False, 0.0),
        (3, 2, False, 1.0),
        (4, 7, True, 1.0),
        (4, 6, True, 0.0),
        (5, 6, True, 1.0),
    ],
)
def test_the_oldest_and_the_newest_event_are_the_probe_in_turns(
    failures: int, probes_left: int, newest: float, *, widened: bool
) -> None:
    breaker = replace(WAITING, failures=failures, probes_left=probes_left, widened=widened)
    assert breaker.permit(IDLE).fresh_share == newest


SUSPECTING = {"failed_alone": frozenset({7})}
FOUND = {"found_at": 1.0}
TURNS: list[tuple[Breaker, dict[str, Any], dict[str, Any], int, Isolated]] = [
    # in which state, otherwise, what is known, how many isolated ones are in flight, which come
    (fresh(), {}, {}, 0, FIRST),
    (fresh(), {"isolated_turn": False}, {}, 0, LAST),
    (fresh(), {}, {}, 3, FIRST),
    (fresh(), {}, {}, 4, NONE),
    (fresh(), {}, SUSPECTING, 0, FIRST),
    (fresh(), {}, SUSPECTING, 1, NONE),
    (fresh(), {}, {**SUSPECTING, **FOUND}, 3, FIRST),
    (fresh(), {}, {**SUSPECTING, **FOUND}, 4, NONE),
    (RECOVERED, {}, {}, 0, LAST),
    (RECOVERED, {}, {}, 1, NONE),
    (RECOVERED, {}, FOUND, 3, FIRST),
    (RECOVERED, {"isolated_turn": False}, FOUND, 3, LAST),
    (RECOVERED, {}, FOUND, 4, NONE),
    (WAITING, {"failures": 2}, {}, 9, LAST),
    (WAITING, {"failures": 3}, {}, 9, LAST),
    (WAITING, {"failures": 4}, {}, 9, FIRST),
    (WAITING, {"failures": 5}, {}, 9, LAST),
    (WAITING, {"failures": 6, "isolated_turn": False}, {}, 9, FIRST),
    (WAITING, {"failures": 4, "refusing": True}, {}, 9, LAST),
    (WAITING, {"failures": 4, "widened": True}, {}, 9, LAST),
]


@pytest.mark.parametrize(("breaker", "state", "known", "isolated", "turn"), TURNS)
def test_whether_isolated_events_come_first_last_or_not(
    breaker: Breaker, state: dict[str, Any], known: dict[str, Any], isolated: int, turn: Isolated
) -> None:
    breaker = replace(breaker, **state, ledger=replace(IsolationLedger(), **known))
    assert breaker.permit(InFlight(isolated=isolated)).isolated is turn


def test_a_batch_that_begins_takes_a_probe_where_one_is_waited_for_and_ends_the_turn() -> None:
    probing = replace(WAITING, probes_left=3)
    assert changes(probing, probing.began(isolated=False)) == {"probes_left": 2}
    assert changes(probing, probing.began(isolated=True)) == {
        "probes_left": 2,
        "isolated_turn": False,
    }
    assert changes(replace(WAITING, probes_left=0), WAITING.began(isolated=False)) == {}
    assert replace(WAITING, probes_left=0).began(isolated=False).probes_left == 0
    assert changes(fresh(), fresh().began(isolated=True)) == {"isolated_turn": False}
    assert fresh().began(isolated=True).began(isolated=False) == fresh()


def test_trouble_begins_an_epoch_and_ends_what_was_counted() -> None:
    before = replace(
        passed(fresh()),
        ledger=IsolationLedger(failed_alone=frozenset({7}), distrusts_retry_after=True),
    )
    trouble = before.with_wait(MISCONFIGURED, "why", 20.0)
    assert changes(before, trouble) == {
        "state": MISCONFIGURED,
        "reason": "why",
        "failures": 1,
        "reopens_at": 20.0,
        "epoch": 1,
        "trouble_epoch": 1,
        "limit.events": 1,
        "streak.passed_at": None,
        "ledger.failed_alone": set(),
    }
    again = trouble.with_wait(
        BACKING_OFF,
        "what",
        30.0,
        probes=2,
        refusing=True,
        shared=False,
        provisional=True,
        asked_for_time=frozenset({7}),
    )
    assert changes(trouble, again) == {
        "state": BACKING_OFF,
        "reason": "what",
        "refusing": True,
        "widened": True,
        "failures": 2,
        "probes_left": 2,
        "reopens_at": 30.0,
        "epoch": 2,
        "provisional": True,
        "ledger.asked_for_time": {7},
        "ledger.distrusts_retry_after": False,
    }
    shared = replace(again, ledger=before.ledger)
    assert shared.with_wait(BACKING_OFF, "", 0, shared=False).ledger.failed_alone == {7}
    assert again.with_wait(BACKING_OFF, "", 0).probes_left == 1


def test_when_nothing_waits_trouble_is_over_but_what_is_known_stays() -> None:
    trouble = WAITING.with_wait(BACKING_OFF, "why", 20.0, probes=8, refusing=True)
    assert changes(trouble, trouble.with_idle()) == {
        "state": HEALTHY,
        "reason": "",
        "refusing": False,
        "failures": 0,
        "limit.events": 500,
    }


@pytest.mark.parametrize(
    ("state", "waiting"),
    [(RECOVERING, BACKING_OFF), (BACKING_OFF, BACKING_OFF), (MISCONFIGURED, MISCONFIGURED)],
)
def test_a_restart_in_trouble_waits_and_probes_with_one_event(
    state: BreakerState, waiting: BreakerState
) -> None:
    resumed = fresh().resumed(state, reason="why", reopens_at=20.0)
    assert resumed == fresh().with_wait(waiting, "why", 20.0)
    assert (resumed.permit(IDLE).max_events, resumed.probes_left) == (1, 1)


def test_a_settled_event_is_forgotten() -> None:
    ledger = IsolationLedger(confirmed_bad=frozenset({7, 8}), refusals={7: 1, 8: 2})
    breaker = replace(fresh(), ledger=ledger)
    assert changes(breaker, breaker.forget(7)) == {
        "ledger.confirmed_bad": {8},
        "ledger.refusals": {8: 2},
    }
