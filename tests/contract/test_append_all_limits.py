"""A call whose events do not all have room."""

from __future__ import annotations

import pytest

from service.errors import IdempotencyKeyReusedError, OutboxFullError, TooManyPendingError
from tests.support.calls import key, pending, replayed
from tests.support.storage import Storage, claim, deliver, event, eventually


async def test_one_reused_key_refuses_the_whole_call_and_frees_its_room(storage: Storage) -> None:
    async with storage.open(max_pending=4) as outbox:
        await outbox.intake.append(event(), key=key("used"))
        fresh, other = event(), event()
        with pytest.raises(IdempotencyKeyReusedError):
            await outbox.intake.append_all(
                [fresh, event(), other], [key("a"), key("used", b"2"), key("b")]
            )
        assert await outbox.intake.find(fresh.id) is None
        assert await outbox.intake.find(other.id) is None
        receipts = await outbox.intake.append_all([event() for _ in "abc"], [key(n) for n in "abc"])
        assert replayed(receipts) == [False] * 3


async def test_a_call_that_has_no_room_for_all_stores_nothing(storage: Storage) -> None:
    async with storage.open(max_pending_per_user=4) as outbox:
        await outbox.intake.append_all([event(), event()], (None, None))
        with pytest.raises(TooManyPendingError) as error:
            await outbox.intake.append_all([event() for _ in range(3)], (None,) * 3)
        assert error.value.retry_after_seconds
        assert await pending(outbox) == 2
        await outbox.intake.append_all([event(), event()], (None, None))


async def test_a_call_that_fills_the_outbox_beyond_its_limit_stores_nothing(
    storage: Storage,
) -> None:
    async with storage.open(max_pending=4) as outbox:
        await outbox.intake.append_all([event("u-1")] * 1, (None,))
        with pytest.raises(OutboxFullError):
            await outbox.intake.append_all([event("u-2") for _ in range(4)], (None,) * 4)
        assert await pending(outbox) == 1


async def test_only_the_new_events_of_a_repeated_call_need_room(storage: Storage) -> None:
    async with storage.open(max_pending_per_user=4) as outbox:
        keys = [key(name) for name in "abc"]
        await outbox.intake.append_all([event() for _ in keys], keys)
        again = await outbox.intake.append_all([event() for _ in "abcd"], [*keys, key("d")])
        assert replayed(again) == [True, True, True, False]
        full = await outbox.intake.append_all([event() for _ in keys], keys)
        assert replayed(full) == [True] * 3
        with pytest.raises(TooManyPendingError):
            await outbox.intake.append_all([event() for _ in "abe"], [*keys[:2], key("e")])
        with pytest.raises(IdempotencyKeyReusedError):
            await outbox.intake.append_all([event(), event()], [key("a"), key("b", b"2")])
        assert await pending(outbox) == 4


async def test_delivery_makes_room_for_a_call(storage: Storage) -> None:
    async with storage.open(max_pending_per_user=2) as outbox:
        await outbox.intake.append_all([event(), event()], (None, None))
        await deliver(outbox, await claim(outbox))

        async def room() -> bool:
            try:
                await outbox.intake.append_all([event(), event()], (None, None))
            except TooManyPendingError:
                return False
            return True

        await eventually(room)
