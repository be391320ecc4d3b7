"""A gateway before Inngest refuses one event, in whatever way: it dies alone, the others go on."""

from __future__ import annotations

import asyncio

import pytest

from service.dev.fake_inngest.faults import Action, Hang, Match, Reset, ScriptedAnswer, TooLarge
from service.outbox.model import State
from service.relay.sends import BreakerState
from tests.support.delivery import Delivery

POISON = Match(prefix="poison")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ScriptedAnswer(403, body="<html>", content_type="text/html"), "undeliverable"),
        (ScriptedAnswer(302, headers={"Location": "http://127.0.0.1:1/"}), "undeliverable"),
        (ScriptedAnswer(408), "undeliverable"),
        (ScriptedAnswer(429, retry_after=1), "undeliverable"),
        (ScriptedAnswer(503, retry_after=1), "undeliverable"),
        (ScriptedAnswer(500), "undeliverable"),
        (ScriptedAnswer(413), "too_large"),
        (ScriptedAnswer(200, body="<html>no</html>", content_type="text/html"), "undeliverable"),
        (ScriptedAnswer(400, body="<html>no</html>", content_type="text/html"), "undeliverable"),
        (Reset("read"), "undeliverable"),
    ],
    ids=str,
)
async def test_one_event_that_is_refused_dies_and_the_others_are_delivered(
    quick_delivery: Delivery, fault: Action, reason: str
) -> None:
    ids = await all_but_one_are_delivered(quick_delivery, fault, reason)
    assert {quick_delivery.api.ledger.times(one) for one in ids} == {1}


async def test_one_event_that_is_not_answered_dies_and_the_others_are_delivered(
    hasty_delivery: Delivery,
) -> None:
    await all_but_one_are_delivered(hasty_delivery, Hang(), "undeliverable")


async def all_but_one_are_delivered(delivery: Delivery, fault: Action, reason: str) -> list[str]:
    """Deliver beside an event that meets this fault; the ids of the others."""
    delivery.api.faults.add(fault, times=None, match=POISON)
    ids = await delivery.accept(*[f"d-{n}" for n in range(30)], "poison")
    bad = ids.pop()
    seconds = 0
    while (await delivery.row(bad)).state is not State.DEAD:
        ids += await delivery.accept("more", "and more")
        await delivery.ends(ids[-2:])
        seconds += 1
        assert seconds < 1000, delivery.relay.breaker
    row = await delivery.row(bad)
    assert (row.reason, row.attempts) == (reason, 10)
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    await delivery.delivery_is(BreakerState.HEALTHY)
    return ids


async def test_413_for_everything_kills_nobody(quick_delivery: Delivery) -> None:
    delivery = quick_delivery
    ids = await delivery.accept(*[f"d-{n}" for n in range(20)])
    await delivery.ends(ids)
    delivery.api.faults.add(TooLarge(max_events=0), times=None)
    for turn in range(20):
        ids += await delivery.accept(*[f"d-{turn}-{n}" for n in range(5)])
        await asyncio.sleep(0)
    await delivery.delivery_is(BreakerState.BACKING_OFF)
    await delivery.api.ledger.wait_for_requests(len(delivery.api.ledger.requests) + 10)
    assert (await delivery.outbox.inspector.stats()).dead == 0
    delivery.api.faults.clear()
    await delivery.ends(ids)
