"""What a trip and a failed round of probes change in the breaker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.inngest.send_result import Signal
from service.relay.breaker import Breaker
from service.relay.evidence import FailureStreak
from service.relay.sends import BreakerState
from tests.support.breakers import after, changes, fresh, knowing, passed

T, R, B, L = Signal.TROUBLE, Signal.REFUSED, Signal.BUSY, Signal.TOO_LARGE
M, U = Signal.MISCONFIGURED, Signal.UNREACHED
BACKING_OFF, MISCONFIGURED = BreakerState.BACKING_OFF, BreakerState.MISCONFIGURED

ALONE = {"lone": 7, "known_isolated": True}
ASKED = {"retry_after_seconds": 12.0, "seqs": frozenset({1, 2})}
NOW = 10.0
PASSING = passed(fresh(), size=1000)
SEVEN_FAILED = replace(fresh(), streak=FailureStreak(count=7, fresh=7, began_at=0.0))


def waiting(failures: int, **more: Any) -> Breaker:
    """A breaker in its so-manieth failed round, without a probe left."""
    breaker = fresh().with_wait(BACKING_OFF, "why", 5.0)
    return replace(breaker, **{"failures": failures, "probes_left": 0, **more})


ONE_FAILED = replace(PASSING, streak=FailureStreak(1, 1, began_at=0.0, passed_at=0.0))
SEVEN_OLD_ONES_FAILED = knowing(
    replace(PASSING, streak=FailureStreak(7, 0, began_at=9.5, passed_at=0.0)),
    failed_alone=frozenset({7}),
)
IN_RECOVERY = replace(
    passed(after(fresh(), T, reason="before")),
    streak=FailureStreak(31, 31, began_at=9.5, passed_at=9.5),
)
# What a first failure changes.
TRIPPED = {
    "state": BACKING_OFF,
    "reason": "why",
    "failures": 1,
    "reopens_at": 10.125,
    "epoch": 1,
    "trouble_epoch": 1,
    "limit.events": 1,
}
ALL_REFUSED = {"reason": "every event is refused", "refusing": True}
STREAK_ENDS = {"streak.passed_at": None}
SEVEN_END = {"streak.count": 0, "streak.fresh": 0, "streak.began_at": float("inf")}
MANY_PROBES = {"widened": True, "probes_left": 8}

ROUNDS: dict[str, tuple[Breaker, Signal, dict[str, Any], dict[str, Any]]] = {
    "a first failure": (
        fresh(),
        T,
        {},
        {**TRIPPED, "provisional": True, "limit.failing": 0.05},
    ),
    "a first failure, of an isolated one among bad ones": (
        knowing(fresh(), found_at=0.0),
        T,
        ALONE,
        {
            **TRIPPED,
            **MANY_PROBES,
            "provisional": True,
            "ledger.failed_alone": {7},
        },
    ),
    "two failures over a second": (
        ONE_FAILED,
        T,
        {"again": True},
        {**TRIPPED, **STREAK_ENDS, **SEVEN_END},
    ),
    "a first answer that asks for time": (
        fresh(),
        B,
        ASKED,
        {
            **TRIPPED,
            "reopens_at": 22.0,
            "limit.failing": 0.05,
            "ledger.asked_for_time": {1, 2},
        },
    ),
    "one that asks for less than the wait": (
        fresh(),
        B,
        {"retry_after_seconds": 0.01},
        {**TRIPPED, "limit.failing": 0.05},
    ),
    "one that asks for time beside what passes": (
        PASSING,
        B,
        ASKED,
        {
            **TRIPPED,
            **STREAK_ENDS,
            "reopens_at": 15.0,
            "limit.failing": 0.05,
            "ledger.asked_for_time": {1, 2},
        },
    ),
    "a refused configuration": (
        fresh(),
        M,
        {"retry_after_seconds": 12.0},
        {**TRIPPED, "state": MISCONFIGURED, "reopens_at": 15.0, "limit.failing": 0.05},
    ),
    "many failures in recovery": (
        IN_RECOVERY,
        T,
        {"again": True},
        {
            **TRIPPED,
            **MANY_PROBES,
            **STREAK_ENDS,
            **SEVEN_END,
            "epoch": 2,
            "trouble_epoch": 2,
            "provisional": False,
            "ledger.found_at": 10.0,
        },
    ),
    "the eighth is refused": (
        knowing(SEVEN_FAILED, failed_alone=frozenset({3})),
        R,
        {"newly_refused": 7},
        {
            **TRIPPED,
            **ALL_REFUSED,
            **MANY_PROBES,
            **SEVEN_END,
            "reopens_at": 10.0,
            "ledger.failed_alone": {3, 7},
        },
    ),
    "the eighth is too large": (
        SEVEN_FAILED,
        L,
        {"lone": 7, "size": 600},
        {
            **TRIPPED,
            **MANY_PROBES,
            **SEVEN_END,
            "reason": "every event is too large",
            "refusing": True,
            "limit.size": 300,
            "ledger.failed_alone": {7},
        },
    ),
    "the eighth, and all are isolated ones": (
        SEVEN_OLD_ONES_FAILED,
        T,
        ALONE,
        {**TRIPPED, **STREAK_ENDS, "streak.count": 0, "streak.began_at": float("inf")},
    ),
    "the eighth, and one is not isolated": (
        SEVEN_OLD_ONES_FAILED,
        T,
        {"again": True},
        {
            **TRIPPED,
            **STREAK_ENDS,
            "streak.count": 0,
            "streak.began_at": float("inf"),
            "ledger.failed_alone": set(),
        },
    ),
    "a fifth round for an unknown cause": (
        waiting(4),
        T,
        {"again": True},
        {"failures": 5, "epoch": 2, "reopens_at": 12.0, "probes_left": 16, "widened": True},
    ),
    "a fifth round out of reach": (
        waiting(4),
        U,
        {"again": True},
        {"failures": 5, "epoch": 2, "reopens_at": 12.0, "probes_left": 1},
    ),
    "a fifth round among bad ones": (
        knowing(waiting(4), found_at=0.0),
        T,
        {"again": True},
        {"failures": 5, "epoch": 2, "reopens_at": 10.5, "probes_left": 32, "widened": True},
    ),
    "a fifth round in which all are refused": (
        waiting(4, refusing=True),
        R,
        {},
        {
            "reason": "every event is refused",
            "failures": 5,
            "epoch": 2,
            "reopens_at": 10.5,
            "probes_left": 32,
            "widened": True,
        },
    ),
    "the 31st round in which all are refused": (
        waiting(30, refusing=True),
        R,
        {},
        {
            "reason": "every event is refused",
            "failures": 31,
            "epoch": 2,
            "reopens_at": 12.5,
            "probes_left": 1,
        },
    ),
}


@pytest.mark.parametrize(("breaker", "signal", "answer", "changed"), ROUNDS.values(), ids=ROUNDS)
def test_what_a_trip_or_a_failed_round_changes(
    breaker: Breaker, signal: Signal, answer: dict[str, Any], changed: dict[str, Any]
) -> None:
    tripped = after(breaker, signal, NOW, **{"reason": "why", **answer})
    changed = {key: value for key, value in changed.items() if value != _now(breaker, key)}
    assert changes(breaker, tripped) == changed


def _now(breaker: Breaker, name: str) -> object:
    part, _, field = name.rpartition(".")
    return getattr(getattr(breaker, part) if part else breaker, field)


REFUSED_SEVEN = FailureStreak(count=7, fresh=7, began_at=0.0)
PROBES: dict[str, tuple[dict[str, Any], Signal, dict[str, Any], bool]] = {
    # what the round is, the answer, whether another round begins
    "the last probe fails": ({}, T, {}, True),
    "a probe fails, and others are left": ({"probes_left": 1}, T, {}, False),
    "the last probe is refused": ({}, R, {"newly_refused": 7}, False),
    "the last probe is too large": ({}, L, {"lone": 7}, False),
    "the eighth in a row is refused": ({"streak": REFUSED_SEVEN}, R, {"newly_refused": 7}, True),
    "the eighth is refused, and others are left": (
        {"streak": REFUSED_SEVEN, "probes_left": 1},
        R,
        {"newly_refused": 7},
        False,
    ),
    "all are refused": ({"refusing": True}, R, {"newly_refused": 7}, True),
    "all are refused, and others are left": (
        {"refusing": True, "probes_left": 1},
        R,
        {"newly_refused": 7},
        False,
    ),
    "all are refused, and a bad one is": (
        {"refusing": True, "ledger": replace(fresh().ledger, confirmed_bad=frozenset({7}))},
        R,
        ALONE,
        False,
    ),
    "all are refused, and a bad one fails": (
        {"refusing": True, "ledger": replace(fresh().ledger, confirmed_bad=frozenset({7}))},
        T,
        ALONE,
        True,
    ),
}


@pytest.mark.parametrize(("state", "signal", "answer", "begins"), PROBES.values(), ids=PROBES)
def test_when_a_failed_probe_ends_its_round(
    state: dict[str, Any], signal: Signal, answer: dict[str, Any], *, begins: bool
) -> None:
    breaker = waiting(4, **state)
    answered = after(breaker, signal, NOW, **answer)
    assert answered.failures == breaker.failures + begins
