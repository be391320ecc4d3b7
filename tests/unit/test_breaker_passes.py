"""What a pass and a late answer change in the breaker, and how it sees a request's events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.inngest.send_result import Signal
from service.relay.breaker import Breaker
from service.relay.breaker_result import view, with_result
from service.relay.sends import Answered, BreakerState, BreakerView
from tests.support.breakers import IDLE, after, changes, fresh, knowing, passed

HEALTHY, RECOVERING = BreakerState.HEALTHY, BreakerState.RECOVERING
BACKING_OFF, MISCONFIGURED = BreakerState.BACKING_OFF, BreakerState.MISCONFIGURED
NOW = 10.0
PASSING = passed(fresh(), size=1000)
PASSED = {"streak.passed_at": NOW}


def with_events(breaker: Breaker, state: BreakerState, events: int) -> Breaker:
    return replace(breaker, state=state, limit=breaker.limit.with_events(events))


def waiting(**more: Any) -> Breaker:
    """A breaker whose trouble began with its second epoch; its next probe is at 20."""
    breaker = replace(PASSING, epoch=1).with_wait(BACKING_OFF, "why", 20.0)
    return replace(breaker, **more)


SUSPECTING = knowing(PASSING, failed_alone=frozenset({7}), confirmed_bad=frozenset({5}))
WAITS_NO_MORE = {**PASSED, "failures": 0, "reopens_at": 0.0}

PASSES: dict[str, tuple[Breaker, dict[str, Any], dict[str, Any]]] = {
    "another request passes": (PASSING, {}, PASSED),
    "a larger one passes": (PASSING, {"size": 1001}, {**PASSED, "limit.passed_size": 1001}),
    "a batch passes beside one that failed alone": (
        SUSPECTING,
        {},
        {
            **PASSED,
            "ledger.failed_alone": set(),
            "ledger.confirmed_bad": {5, 7},
            "ledger.found_at": NOW,
        },
    ),
    "another event passes alone": (
        SUSPECTING,
        {"lone": 8},
        {
            **PASSED,
            "ledger.failed_alone": set(),
            "ledger.confirmed_bad": {5, 7},
            "ledger.found_at": NOW,
        },
    ),
    "an isolated one passes": (
        knowing(SUSPECTING, found_at=1.0),
        {"lone": 5, "known_isolated": True},
        {
            **PASSED,
            "ledger.failed_alone": set(),
            "ledger.confirmed_bad": set(),
            "ledger.found_at": None,
        },
    ),
    "smaller batches pass while it is healthy": (
        with_events(PASSING, HEALTHY, 100),
        {},
        {**PASSED, "limit.events": 200},
    ),
    "a probe passes": (
        waiting(),
        {},
        {**WAITS_NO_MORE, "state": RECOVERING, "limit.events": 2},
    ),
    "a probe passes where all were refused": (
        waiting(refusing=True),
        {},
        {**WAITS_NO_MORE, "state": RECOVERING, "limit.events": 2, "refusing": False},
    ),
    "a probe passes and nothing more was due": (
        waiting(),
        {"drained": True},
        {**WAITS_NO_MORE, "state": HEALTHY, "reason": "", "limit.events": 500},
    ),
    "a probe passes that was sent since the trouble began": (
        waiting(epoch=3),
        {"epoch": 2},
        {**WAITS_NO_MORE, "state": RECOVERING, "limit.events": 2},
    ),
    "a request passes that was sent before the trouble began": (waiting(), {"epoch": 1}, {}),
    "such a request passes beside one that failed alone": (
        knowing(waiting(), failed_alone=frozenset({7})),
        {"epoch": 1},
        {
            "ledger.failed_alone": set(),
            "ledger.confirmed_bad": {7},
            "ledger.found_at": NOW,
        },
    ),
    "such a request passes where one failure tripped it": (
        waiting(provisional=True),
        {"epoch": 1},
        {**WAITS_NO_MORE, "state": RECOVERING, "limit.events": 2},
    ),
    "one passes that was sent before another trouble": (
        waiting(provisional=True),
        {"epoch": 0},
        {},
    ),
    "batches pass in recovery": (
        replace(with_events(PASSING, RECOVERING, 100), reason="why"),
        {},
        {**PASSED, "limit.events": 200},
    ),
    "a full batch may follow in recovery": (
        replace(with_events(PASSING, RECOVERING, 250), reason="why"),
        {},
        {**PASSED, "state": HEALTHY, "reason": "", "limit.events": 500},
    ),
}


@pytest.mark.parametrize(("breaker", "answer", "changed"), PASSES.values(), ids=PASSES)
def test_what_a_pass_changes(
    breaker: Breaker, answer: dict[str, Any], changed: dict[str, Any]
) -> None:
    answer = dict(answer)
    permit = replace(breaker.permit(IDLE), epoch=answer.pop("epoch", breaker.epoch))
    answered = Answered(Signal.PASSED, 0.0, **answer)
    after_pass = with_result(breaker, answered, permit=permit, now=NOW, jitter=0.5)
    assert changes(breaker, after_pass) == changed


@pytest.mark.parametrize(
    ("breaker", "asked", "reopens_at"),
    [
        (waiting(reopens_at=11.0), 3.0, 13.0),
        (waiting(reopens_at=11.0), 60.0, 15.0),
        (waiting(reopens_at=14.0), 3.0, 14.0),
        (waiting(reopens_at=11.0), None, 11.0),
        (waiting(reopens_at=11.0, state=MISCONFIGURED), 3.0, 11.0),
        (waiting(reopens_at=0.0, state=RECOVERING), 3.0, 0.0),
        (waiting(reopens_at=0.0, state=HEALTHY), 3.0, 0.0),
    ],
)
@pytest.mark.parametrize("signal", [one for one in Signal if one is not Signal.PASSED])
def test_a_late_failure_changes_only_the_wait_and_only_by_asking_for_time(
    signal: Signal, breaker: Breaker, asked: float | None, reopens_at: float
) -> None:
    permit = replace(breaker.permit(IDLE), epoch=breaker.epoch - 1)
    answered = Answered(signal, 0.0, lone=7, newly_refused=7, retry_after_seconds=asked)
    late = with_result(breaker, answered, permit=permit, now=NOW, jitter=0.5)
    assert late == replace(breaker, reopens_at=reopens_at)


KNOWN = knowing(PASSING, confirmed_bad=frozenset({7}), refusals={7: 2}, found_at=0.0)
SEEN = BreakerView(bad_events=True, passed_size=1000)
VIEWS: dict[str, tuple[Breaker, int | None, bool, BreakerView]] = {
    # the breaker after the answer, the event that was sent alone, whether the answer was late
    "a batch": (KNOWN, None, False, SEEN),
    "an event": (KNOWN, 8, False, SEEN),
    "a bad event": (KNOWN, 7, False, replace(SEEN, confirmed_bad=True, refusals=2)),
    "late, and others pass": (replace(KNOWN, epoch=1), 7, True, replace(SEEN, resend=False)),
    "paused": (KNOWN.with_pause(paused=True), 7, False, replace(SEEN, resend=False)),
    "in trouble": (waiting(epoch=0), 7, False, replace(SEEN, resend=False)),
    "in trouble since": (waiting(), 8, True, replace(SEEN, resend=False, refusing=True)),
    "all are refused": (
        waiting(epoch=0, refusing=True),
        8,
        False,
        replace(SEEN, resend=False, refusing=True),
    ),
    "all are refused, also a bad event": (
        waiting(epoch=0, refusing=True),
        7,
        False,
        replace(SEEN, resend=False, refusing=True, confirmed_bad=True),
    ),
}


@pytest.mark.parametrize(("breaker", "lone", "late", "seen"), VIEWS.values(), ids=VIEWS)
def test_how_it_sees_the_events_of_an_answer(
    breaker: Breaker, lone: int | None, seen: BreakerView, *, late: bool
) -> None:
    permit = KNOWN.permit(IDLE)
    assert (permit.epoch != breaker.epoch) is late
    expected = replace(seen, refusals=2 if lone == 7 else 0)
    assert view(breaker, KNOWN, permit, lone, 59.0) == expected
    assert not view(breaker, KNOWN, permit, lone, 60.0).bad_events


def test_a_bad_event_is_so_as_it_was_before_its_answer() -> None:
    failed = after(KNOWN, Signal.TROUBLE, 1.0, lone=7, known_isolated=True)
    assert view(failed, KNOWN, KNOWN.permit(IDLE), 7, 1.0).confirmed_bad
    assert not view(failed, failed, KNOWN.permit(IDLE), 7, 1.0).confirmed_bad
