"""Events that end dead, and no other with them: refused, too large, failing alone.

Inngest refuses them, or a gateway before it.
"""

from __future__ import annotations

import time

import pytest

from service.dev.fake_inngest.faults import (
    Action,
    Match,
    Poison,
    Reset,
    ScriptedAnswer,
    TooLarge,
)
from service.outbox.model import Row, State
from service.relay.sends import BreakerState
from tests.support.delivery import Delivery


def ended_at_ms(row: Row) -> int:
    assert row.settled_at_ms is not None
    return row.settled_at_ms


POISON = Match(prefix="poison")


async def test_a_refused_event_dies_alone_after_1_and_3_s_with_the_servers_words(
    delivery: Delivery,
) -> None:
    delivery.api.faults.add(Poison(error="no such name"), times=None)
    began = time.monotonic()
    ids = await delivery.accept(*[f"d-{n}" for n in range(10)], "poison", "d-11", "d-12")
    bad = ids.pop(10)
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    [row] = await delivery.ends([bad], State.DEAD)
    assert all(ended_at_ms(one) < ended_at_ms(row) for one in rows)
    assert time.monotonic() - began > 4
    assert (row.reason, row.detail, row.attempts) == ("rejected", "no such name", 3)
    notes = [str(note["note"]) for note in row.history]
    assert notes == [
        "suspected: no such name",
        "refused: no such name",
        "refused: no such name",
    ]
    assert delivery.api.ledger.times(bad) == 0
    assert {delivery.api.ledger.times(one) for one in ids} == {1}


async def test_one_event_that_is_too_large_dies_of_it(delivery: Delivery) -> None:
    delivery.api.faults.add(TooLarge(max_bytes=600), times=None)
    small, large = await delivery.accept("d", "x" * 900)
    await delivery.ends([small])
    [row] = await delivery.ends([large], State.DEAD)
    assert (row.reason, row.attempts) == ("too_large", 1)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ScriptedAnswer(403, body="<html>", content_type="text/html"), "undeliverable"),
        (ScriptedAnswer(429, retry_after=1), "undeliverable"),
        (ScriptedAnswer(500), "undeliverable"),
        (ScriptedAnswer(413), "too_large"),
        (ScriptedAnswer(200, body="<html>no</html>", content_type="text/html"), "undeliverable"),
        (Reset("read"), "undeliverable"),
    ],
    ids=str,
)
async def test_one_event_that_is_refused_dies_and_the_others_are_delivered(
    quick_delivery: Delivery, fault: Action, reason: str
) -> None:
    delivery = quick_delivery
    delivery.api.faults.add(fault, times=None, match=POISON)
    ids = await delivery.accept(*[f"d-{n}" for n in range(30)], "poison")
    bad = ids.pop()
    while (await delivery.row(bad)).state is not State.DEAD:
        ids += await delivery.accept("more", "and more")
        await delivery.ends(ids[-2:])
        assert len(ids) < 2000, delivery.relay.breaker
    row = await delivery.row(bad)
    assert (row.reason, row.attempts) == (reason, 10)
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    await delivery.delivery_is(BreakerState.HEALTHY)
    assert {delivery.api.ledger.times(one) for one in ids} == {1}
