"""Keys that count for a while."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import IdempotencyKeyReusedError
from tests.support.calls import aged, key, pending, replayed
from tests.support.storage import Outbox, claim, event, ids

pytestmark = pytest.mark.in_memory_too


async def test_within_its_lifetime_a_key_is_replayed(outbox: Outbox) -> None:
    first = await outbox.intake.append(aged(50), key=key("a", lifetime_seconds=100))
    again = await outbox.intake.append(event(), key=key("a", lifetime_seconds=100))
    assert (again.event_id, again.replayed) == (first.event_id, True)


async def test_after_its_lifetime_a_key_takes_a_new_event(outbox: Outbox) -> None:
    daily = key("a", lifetime_seconds=100)
    first = await outbox.intake.append(aged(200), key=daily)
    second = await outbox.intake.append(event(), key=daily)
    third = await outbox.intake.append(event(), key=daily)
    assert not second.replayed
    assert (third.event_id, third.replayed) == (second.event_id, True)
    assert ids(await claim(outbox)) == [first.event_id, second.event_id]


async def test_after_its_lifetime_a_key_may_stand_for_another_body(outbox: Outbox) -> None:
    await outbox.intake.append(aged(200), key=key("a", lifetime_seconds=100))
    receipts = await outbox.intake.append_all(
        [event(), event()], [key("b"), key("a", b"2", lifetime_seconds=100)]
    )
    assert replayed(receipts) == [False, False]
    with pytest.raises(IdempotencyKeyReusedError):
        await outbox.intake.append(event(), key=key("a", lifetime_seconds=100))


async def test_a_key_without_a_lifetime_is_never_taken(outbox: Outbox) -> None:
    first = await outbox.intake.append(aged(1_000_000), key=key("a"))
    again = await outbox.intake.append(event(), key=key("a"))
    assert (again.event_id, again.replayed) == (first.event_id, True)


async def test_a_refused_call_takes_no_expired_key(outbox: Outbox) -> None:
    daily = key("a", lifetime_seconds=100)
    first = await outbox.intake.append(aged(200), key=daily)
    await outbox.intake.append(event(), key=key("used"))
    with pytest.raises(IdempotencyKeyReusedError):
        await outbox.intake.append_all([event(), event()], [daily, key("used", b"2")])
    again = await outbox.intake.append(event(), key=key("a"))
    assert (again.event_id, again.replayed) == (first.event_id, True)


async def test_a_key_does_not_expire_within_a_call_however_old_its_event(outbox: Outbox) -> None:
    daily = key("a", lifetime_seconds=100)
    receipts = await outbox.intake.append_all([aged(200), aged(200)], [daily, daily])
    assert replayed(receipts) == [False, True]


async def test_an_expired_key_at_one_instant_takes_one_event(outbox: Outbox) -> None:
    daily = key("a", lifetime_seconds=100)
    await outbox.intake.append(aged(200), key=daily)
    receipts = await asyncio.gather(
        *(outbox.intake.append(event(), key=daily) for _ in range(10)),
    )
    assert len({receipt.event_id for receipt in receipts}) == 1
    assert sum(not receipt.replayed for receipt in receipts) == 1
    assert await pending(outbox) == 2
