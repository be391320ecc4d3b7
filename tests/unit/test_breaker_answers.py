"""What each answer changes in the breaker, and that it changes nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.inngest.send_result import Signal
from service.relay.breaker import Breaker
from service.relay.evidence import FailureStreak
from service.relay.sends import BreakerState
from tests.support.breakers import after, changes, fresh, knowing, passed

NOW = 0.5
ALONE = {"lone": 7, "known_isolated": True}
# At 0 a request of 1000 bytes has passed.
PASSING = passed(fresh(), size=1000)
# Since then event 7 has failed alone, and another has passed.
FOUND = replace(PASSING, ledger=replace(PASSING.ledger, confirmed_bad=frozenset({7}), found_at=0.0))
# Every event is refused: a round of two probes.
REFUSING = replace(
    FOUND.with_wait(BreakerState.BACKING_OFF, "refused", 0.0, probes=2, refusing=True),
    ledger=FOUND.ledger,
)
COUNTED = {"streak.count": 1, "streak.fresh": 1, "streak.began_at": 0.25}
FAILED_ALONE = {"ledger.failed_alone": {7}}
SEVEN_FAILED = replace(fresh(), streak=FailureStreak(count=7, fresh=7, began_at=0.0))
# It passed and then failed more than a second ago.
ONE_FAILED = replace(PASSING, streak=FailureStreak(1, 1, began_at=-1.0, passed_at=-1.0))
ASKED = {"retry_after_seconds": 1.0}

T, R, B, L = Signal.TROUBLE, Signal.REFUSED, Signal.BUSY, Signal.TOO_LARGE
LEARNED: dict[str, tuple[Breaker, Signal, dict[str, Any], dict[str, Any]]] = {
    "a batch failed": (PASSING, T, {}, {**COUNTED, "limit.failing": 0.05}),
    "a part failed": (PASSING, T, {"again": True}, COUNTED),
    "one event failed": (PASSING, T, {"lone": 7}, {**COUNTED, "limit.failing": 0.05}),
    "it failed again": (PASSING, T, {"lone": 7, "again": True}, {**COUNTED, **FAILED_ALONE}),
    "an isolated one failed": (
        PASSING,
        T,
        ALONE,
        {"streak.count": 1, "streak.began_at": 0.25, **FAILED_ALONE},
    ),
    "another isolated one failed, and bad ones are known": (
        FOUND,
        T,
        {**ALONE, "lone": 8},
        {"ledger.failed_alone": {8}},
    ),
    "a confirmed one failed": (FOUND, T, ALONE, {**FAILED_ALONE, "ledger.confirmed_bad": set()}),
    "a confirmed one asked for time": (
        FOUND,
        B,
        {**ALONE, "retry_after_seconds": 9.0},
        {
            **FAILED_ALONE,
            "ledger.confirmed_bad": set(),
            "ledger.distrusts_retry_after": True,
        },
    ),
    "an isolated one asked for time": (
        FOUND,
        B,
        {**ALONE, "lone": 8, "retry_after_seconds": 9.0},
        {"ledger.failed_alone": {8}},
    ),
    "a batch's first was refused": (PASSING, R, {"newly_refused": 7}, {**COUNTED, **FAILED_ALONE}),
    "of a batch none was named": (PASSING, R, {}, {}),
    "one was refused": (
        PASSING,
        R,
        {"lone": 7, "newly_refused": 7},
        {**COUNTED, **FAILED_ALONE, "ledger.refusals": {7: 1}},
    ),
    "it was refused again": (PASSING, R, ALONE, {**FAILED_ALONE, "ledger.refusals": {7: 1}}),
    "a confirmed one was refused": (FOUND, R, ALONE, {"ledger.refusals": {7: 1}}),
    "one was refused as every event is": (
        REFUSING,
        R,
        {"lone": 8, "newly_refused": 8},
        {**COUNTED, "ledger.failed_alone": {8}},
    ),
    "a confirmed one was refused as every event is": (
        REFUSING,
        R,
        ALONE,
        {"ledger.refusals": {7: 1}},
    ),
    "a batch was larger than what passes": (PASSING, L, {"size": 1001}, {"limit.size": 500}),
    "a batch was too large though its size passes": (
        PASSING,
        L,
        {"size": 1000},
        {**COUNTED, "limit.size": 500},
    ),
    "one event was too large": (
        PASSING,
        L,
        {"lone": 7, "size": 1001},
        {**COUNTED, **FAILED_ALONE, "limit.size": 500},
    ),
    "an isolated one was too large": (
        PASSING,
        L,
        {**ALONE, "size": 900},
        {**FAILED_ALONE, "limit.size": 450},
    ),
    "a confirmed one was too large": (
        replace(FOUND, limit=replace(FOUND.limit, size=800)),
        L,
        {**ALONE, "size": 1001},
        {**FAILED_ALONE, "ledger.confirmed_bad": set(), "limit.size": 1 << 20},
    ),
}


@pytest.mark.parametrize(("breaker", "signal", "answer", "changed"), LEARNED.values(), ids=LEARNED)
def test_what_a_failure_that_trips_nothing_changes(
    breaker: Breaker, signal: Signal, answer: dict[str, Any], changed: dict[str, Any]
) -> None:
    learned = after(breaker, signal, NOW, **{"began_at": 0.25, **answer})
    assert changes(breaker, learned) == changed


def test_an_isolated_one_that_fails_long_after_bad_ones_were_found_counts() -> None:
    for now, counted in ((59.9, 0), (60.0, 1)):
        assert after(FOUND, T, now, **{**ALONE, "lone": 8}).streak.count == counted


TRIPS: dict[str, tuple[Breaker, Signal, dict[str, Any], bool]] = {
    "nothing has passed": (fresh(), T, {}, True),
    "nothing has passed, and an isolated one fails among bad ones": (
        knowing(fresh(), found_at=0.0),
        T,
        ALONE,
        True,
    ),
    "nothing has passed, and one is refused": (fresh(), R, {"newly_refused": 7}, False),
    "nothing has passed, and a batch is too large": (fresh(), L, {"size": 9}, False),
    "the eighth is refused": (SEVEN_FAILED, R, {"newly_refused": 7}, True),
    "the eighth is too large": (SEVEN_FAILED, L, {"lone": 7}, True),
    "it is busy without asking for time": (PASSING, B, {}, False),
    "a batch asks for time": (PASSING, B, ASKED, True),
    "a batch that failed asks for time": (PASSING, B, {**ASKED, "again": True}, False),
    "an isolated one asks for time": (PASSING, B, {**ASKED, **ALONE}, False),
    "after others one asks for time": (
        knowing(PASSING, asked_for_time=frozenset({7})),
        B,
        {**ASKED, "seqs": frozenset({8})},
        True,
    ),
    "one that asked for time does so again": (
        knowing(PASSING, asked_for_time=frozenset({7})),
        B,
        {**ASKED, "seqs": frozenset({7, 8})},
        False,
    ),
    "one asks for time as a bad one did": (
        knowing(PASSING, distrusts_retry_after=True),
        B,
        ASKED,
        False,
    ),
    "two failed over a second": (ONE_FAILED, T, {}, True),
    "two failed over a second, of which one counts": (
        knowing(replace(ONE_FAILED, streak=replace(ONE_FAILED.streak, count=2)), found_at=0.0),
        T,
        ALONE,
        False,
    ),
}


@pytest.mark.parametrize(("breaker", "signal", "answer", "trips"), TRIPS.values(), ids=TRIPS)
def test_what_trips_it(
    breaker: Breaker, signal: Signal, answer: dict[str, Any], *, trips: bool
) -> None:
    assert after(breaker, signal, NOW, **answer).state.waits is trips
