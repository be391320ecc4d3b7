"""Stored bytes are limited in all and by owner; delivered rows count until they are gone."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import OutboxFullError, TooManyPendingError
from service.outbox.keys import IdempotencyKey
from service.outbox.model import Filter, Named
from tests.support.named_rows import named
from tests.support.storage import (
    Outbox,
    PostgresStorage,
    Storage,
    append_all,
    claim,
    deliver,
    event,
    eventually,
)


async def has_room(outbox: Outbox, user_id: str = "u-1", size: int = 600) -> bool:
    """Whether an event is accepted; it is removed again."""
    try:
        receipt = await outbox.intake.append(event(user_id, size=size))
    except (TooManyPendingError, OutboxFullError):
        return False
    await outbox.repairs.discard(Named((receipt.event_id,)), actor="ada")
    return True


async def test_an_owners_delivered_rows_count_until_they_are_purged(storage: Storage) -> None:
    async with storage.open(max_bytes_per_user=1000) as outbox:
        await outbox.intake.append(event(size=600))
        await deliver(outbox, await claim(outbox))
        with pytest.raises(TooManyPendingError, match="limit in bytes") as error:
            await outbox.intake.append(event(size=600))
        assert error.value.retry_after_seconds
        await outbox.intake.append(event("u-2", size=600))
        await outbox.intake.append(event(size=400))
        assert await outbox.repairs.purge(older_than_seconds=-1, actor=None) == 1
        await eventually(lambda: has_room(outbox))


async def test_a_payload_that_is_purged_gives_its_bytes_back(storage: Storage) -> None:
    async with storage.open(max_bytes_per_user=1000) as outbox:
        await outbox.intake.append(event(size=600))
        await deliver(outbox, await claim(outbox))
        assert not await has_room(outbox)
        assert await outbox.repairs.purge_payloads(older_than_seconds=-1) == 1
        await eventually(lambda: has_room(outbox))


async def test_an_outbox_without_room_refuses_everybody_until_rows_are_discarded(
    storage: Storage,
) -> None:
    async with storage.open(max_bytes=2000) as outbox:
        await outbox.intake.append(event("u-1", size=900))
        await outbox.intake.append(event("u-2", size=900))
        with pytest.raises(OutboxFullError, match="limit in bytes"):
            await outbox.intake.append(event("u-3", size=201))
        assert await has_room(outbox, "u-3", 200)
        await outbox.repairs.discard(
            await named(outbox.inspector, Filter(owner="u-2")), actor="ada"
        )
        await eventually(lambda: has_room(outbox, "u-3"))


async def test_a_burst_at_one_instant_stays_within_the_bytes(storage: Storage) -> None:
    async with storage.open(max_bytes_per_user=3000) as outbox:
        answers = await asyncio.gather(
            *(outbox.intake.append(event(size=1000)) for _ in range(20)), return_exceptions=True
        )
        assert sum(isinstance(answer, TooManyPendingError) for answer in answers) == 17
        assert (await outbox.inspector.stats()).pending == 3


async def test_an_event_that_is_not_stored_leaves_its_bytes_to_others(storage: Storage) -> None:
    key = IdempotencyKey("k-1", b"1" * 32)
    async with storage.open(max_bytes_per_user=1000) as outbox:
        await outbox.intake.append(event(size=400), key=key)
        for _ in range(3):
            assert (await outbox.intake.append(event(size=400), key=key)).replayed
        assert await has_room(outbox)


async def test_bytes_of_an_earlier_process_count(storage: Storage) -> None:
    async with storage.open() as outbox:
        await append_all(outbox, 3)
        await deliver(outbox, await claim(outbox))
    async with storage.open(max_bytes_per_user=1000) as outbox:

        async def refused() -> bool:
            return not await has_room(outbox)

        await eventually(refused)
        await outbox.repairs.discard(await named(outbox.inspector), actor="ada")
        await eventually(lambda: has_room(outbox))


async def test_bytes_that_another_process_stores_count(storage: Storage) -> None:
    if not storage.shared:
        pytest.skip("one process has the file")
    assert isinstance(storage, PostgresStorage)
    limits = {"max_bytes": 10_000, "max_bytes_per_user": 2000}
    async with storage.open(**limits) as one, storage.open(**limits) as two:
        await one.intake.append(event(size=1900))
        await deliver(one, await claim(one))

        async def refused() -> bool:
            return not await has_room(two)

        await eventually(refused)
        assert await has_room(two, "u-2")
        for number in range(3, 7):
            await one.intake.append(event(f"u-{number}", size=1900))
        await eventually(lambda: two.quota._in_all()[1] > 9000)
        with pytest.raises(OutboxFullError, match="limit in bytes"):
            await two.intake.append(event("u-2", size=1500))
