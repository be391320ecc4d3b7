"""What a delivery tells the breaker about each answer, and what it asks Inngest after it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from service.inngest.send_result import SendResult
from service.outbox.model import Batch
from service.relay.breaker import Breaker
from service.relay.sends import BreakerState
from tests.support.breakers import changes, fresh, knowing
from tests.support.delivery_room import FAILED, PASSING, Room, batch, taken
from tests.support.virtual_time import run_in_virtual_time

BACKING_OFF, RECOVERING = BreakerState.BACKING_OFF, BreakerState.RECOVERING
LATER = SendResult(503, None, "later", retry_after_seconds=12.0)
REFUSED = SendResult(400, ("",), "bad")
TOO_LARGE = SendResult(413, None, "large")
DEAD = {"confirmed_bad": frozenset({1}), "refusals": {1: 2, 2: 1}}


def answered(breaker: Breaker, rows: Batch, result: SendResult | None) -> Room:
    """The room after it sent the rows at 5 s and got this answer; None takes them all."""
    room = Room(breaker)

    async def main() -> None:
        await asyncio.sleep(5)
        room.answer = taken if result is None else lambda _: result
        await room.deliver(rows, send_until=5.0)

    run_in_virtual_time(main())
    return room


TOLD: dict[str, tuple[Breaker, Batch, SendResult | None, dict[str, Any]]] = {
    "how large a request passed": (
        PASSING,
        batch(1, 2, size=1001),
        None,
        {"streak.passed_at": 5.125, "limit.passed_size": 1001},
    ),
    "that an isolated one passed": (
        knowing(PASSING, failed_alone=frozenset({9}), found_at=1.0),
        batch(1, isolated=True),
        None,
        {"streak.passed_at": 5.125, "ledger.failed_alone": set(), "ledger.found_at": None},
    ),
    "that one passed alone": (
        knowing(PASSING, failed_alone=frozenset({9})),
        batch(1),
        None,
        {
            "streak.passed_at": 5.125,
            "ledger.failed_alone": set(),
            "ledger.confirmed_bad": {9},
            "ledger.found_at": 5.125,
        },
    ),
    "that an isolated one failed": (
        PASSING,
        batch(1, isolated=True),
        FAILED,
        {"streak.count": 1, "streak.began_at": 5.0, "ledger.failed_alone": {1}},
    ),
    "that a batch's first was refused": (
        PASSING,
        batch(1, 2),
        REFUSED,
        {
            "streak.count": 1,
            "streak.fresh": 1,
            "streak.began_at": 5.0,
            "ledger.failed_alone": {1},
        },
    ),
    "that an isolated one was refused": (
        PASSING,
        batch(1, isolated=True),
        REFUSED,
        {"ledger.failed_alone": {1}, "ledger.refusals": {1: 1}},
    ),
    "that a dead one is settled": (
        knowing(PASSING, **DEAD),
        batch(1, isolated=True),
        REFUSED,
        {"ledger.confirmed_bad": set(), "ledger.refusals": {2: 1}},
    ),
    "who asked for time": (
        replace(fresh(), ledger=PASSING.ledger),
        batch(1, 2),
        LATER,
        {
            "state": BACKING_OFF,
            "reason": "503 later",
            "failures": 1,
            "reopens_at": 17.125,
            "epoch": 1,
            "trouble_epoch": 1,
            "limit.events": 1,
            "limit.failing": 0.05,
            "ledger.asked_for_time": {1, 2},
        },
    ),
}


@pytest.mark.parametrize(("breaker", "rows", "result", "changed"), TOLD.values(), ids=TOLD)
def test_what_the_breaker_is_told(
    breaker: Breaker, rows: Batch, result: SendResult | None, changed: dict[str, Any]
) -> None:
    assert changes(breaker, answered(breaker, rows, result).breaker) == changed


@pytest.mark.parametrize(
    ("rows", "drained"),
    [
        (batch(1, 2, 3), True),
        (batch(1, 2, 3, 4), False),
        (batch(1, 2, 3, size=499), True),
        (batch(1, 2, 3, size=500), False),
        (batch(1, 2, 3, size=999), False),
        (batch(1, 2, 3, 4, size=999), False),
        (batch(1), True),
        (batch(1, isolated=True), False),
    ],
)
def test_a_recovery_ends_with_a_batch_that_had_room_for_more(rows: Batch, *, drained: bool) -> None:
    limit = replace(PASSING.limit, events=4, max_events=40, size=1000)
    room = answered(replace(PASSING, state=RECOVERING, limit=limit), rows, None)
    assert (room.breaker.state is BreakerState.HEALTHY) is drained


@pytest.mark.parametrize(
    ("rows", "result", "asked"),
    [
        (batch(1, size=1001), TOO_LARGE, [1]),
        (batch(1, size=1000), TOO_LARGE, []),
        (batch(1, 2, size=1001), TOO_LARGE, []),
        (batch(1, size=1001), FAILED, []),
        (batch(1, size=1001), None, []),
    ],
)
def test_a_smaller_request_is_tried_after_an_event_larger_than_what_passes(
    rows: Batch, result: SendResult | None, asked: list[int]
) -> None:
    assert answered(PASSING, rows, result).heard.too_large == asked
