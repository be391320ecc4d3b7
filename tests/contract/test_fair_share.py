"""An owner who fills the queue holds back nobody else; stored bytes are limited, by owner, too."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from inngest_outbox.errors import IdempotencyKeyReusedError, OutboxFullError, TooManyPendingError
from inngest_outbox.outbox.limits import FairShare
from inngest_outbox.outbox.model import Filter, Named, Retry, Settlement
from tests.support.calls import key, pending, replayed
from tests.support.named_rows import named
from tests.support.storage import (
    Outbox,
    PostgresStorage,
    Storage,
    append_all,
    ask,
    claim,
    deliver,
    event,
    eventually,
)

SMALL = FairShare(noisy_rows=50)


@pytest.fixture
async def outbox(storage: Storage) -> AsyncIterator[Outbox]:
    """One in which more than 50 waiting rows make an owner noisy."""
    async with storage.open(fair_share=SMALL) as opened:
        yield opened


async def owners(outbox: Outbox, max_events: int, **changes: object) -> Counter[str]:
    batch = await claim(outbox, ask(max_events, **changes))
    await deliver(outbox, batch)
    return Counter(entry.user_id for entry in batch.entries)


async def append_sized(outbox: Outbox, count: int, user_id: str, size: int) -> None:
    events = [event(user_id, size=size) for _ in range(count)]
    await asyncio.gather(*(outbox.intake.append(one) for one in events))


async def test_a_claim_beside_a_flood_gives_half_to_those_who_have_few(outbox: Outbox) -> None:
    await append_all(outbox, 200, "flood")
    await append_all(outbox, 30, "ada")
    assert await owners(outbox, 20) == {"flood": 10, "ada": 10}
    assert await owners(outbox, 20) == {"flood": 10, "ada": 10}
    await append_all(outbox, 1, "kim")
    assert await owners(outbox, 22) == {"flood": 11, "ada": 10, "kim": 1}
    assert await owners(outbox, 20) == {"flood": 20}


async def test_batches_of_one_go_to_both_in_turn(outbox: Outbox) -> None:
    await append_all(outbox, 60, "flood")
    await append_all(outbox, 3, "ada")
    found = Counter[str]()
    for _ in range(4):
        found += await owners(outbox, 1)
    assert found == {"flood": 2, "ada": 2}


async def test_the_share_of_the_newest_stays_beside_a_flood(outbox: Outbox) -> None:
    """Also where the newest alone are wanted."""
    await append_all(outbox, 100, "flood")
    await append_all(outbox, 20, "ada")
    await append_all(outbox, 60, "flood")
    late = await append_all(outbox, 1, "flood")
    batch = await claim(outbox, ask(10, fresh_share=0.2))
    assert Counter(entry.user_id for entry in batch.entries) == {"flood": 5, "ada": 5}
    assert late[0].id in {entry.event_id for entry in batch.entries}
    for _ in range(2):
        assert await owners(outbox, 1, fresh_share=1.0) in ({"flood": 1}, {"ada": 1})


async def test_a_large_row_at_the_head_waits_for_no_stream_of_small_ones(outbox: Outbox) -> None:
    await outbox.intake.append(event("flood", size=5000))
    await append_all(outbox, 60, "flood")
    batches: list[tuple[int, int]] = []
    for _ in range(2):
        await append_all(outbox, 3, "ada")
        batch = await claim(outbox, ask(20, max_bytes=4000))
        batches.append((len(batch.entries), len(batch.payloads)))
        await deliver(outbox, batch)
    assert (1, 5000) in batches
    assert min(size for _, size in batches) <= 4000


@pytest.mark.parametrize(
    ("owner", "size", "fresh_share"),
    [
        ("flood", 2500, 0.0),
        ("flood", 3900, 0.2),
        ("flood", 5000, 0.8),
        ("ada", 2500, 0.8),
        ("ada", 3900, 0.0),
        ("ada", 5000, 0.2),
    ],
)
async def test_a_claim_stays_within_its_bytes_beside_a_flood(
    outbox: Outbox, owner: str, size: int, fresh_share: float
) -> None:
    await outbox.intake.append(event("flood", size=size))
    for user_id, count, bytes_each in (
        ("flood", 60, 500),
        (owner, 3, size),
        ("flood", 10, 500),
    ):
        await append_sized(outbox, count, user_id, bytes_each)
    for _ in range(8):
        batch = await claim(outbox, ask(20, max_bytes=4000, fresh_share=fresh_share))
        commas = len(batch.entries) - 1
        assert len(batch.payloads) - commas <= 4000 or commas == 0
        await deliver(outbox, batch)


async def test_half_of_the_bytes_are_for_those_who_have_few(outbox: Outbox) -> None:
    for user_id, count, size in (("flood", 60, 100), ("ada", 2, 100), ("ada", 2, 300)):
        await append_sized(outbox, count, user_id, size)
    assert await owners(outbox, 10, max_bytes=400) == {"flood": 2, "ada": 2}
    found = Counter[str]()
    for _ in range(4):  # each has its turn with a row that is larger than half
        found += await owners(outbox, 10, max_bytes=400)
    assert found["ada"] == 2


async def test_owners_without_a_flood_are_served_in_the_order_of_acceptance(
    outbox: Outbox,
) -> None:
    for number in range(20):
        await append_all(outbox, 10, f"u-{number}")
    assert await owners(outbox, 20) == {"u-0": 10, "u-1": 10}


async def test_a_flood_that_is_over_marks_nobody(outbox: Outbox) -> None:
    await append_all(outbox, 60, "flood")
    batch = await claim(outbox, ask(100))
    seqs = [entry.seq for entry in batch.entries]
    assert await outbox.queue.settle(Settlement(batch.claim, delivered=seqs)) == 0
    await append_all(outbox, 30, "first")
    await append_all(outbox, 30, "ada")
    assert await owners(outbox, 20) == {"first": 20}


async def test_rows_that_come_back_keep_their_share(outbox: Outbox) -> None:
    await append_all(outbox, 60, "flood")
    await append_all(outbox, 4, "ada")
    batch = await claim(outbox, ask(8))
    assert Counter(entry.user_id for entry in batch.entries) == {"flood": 4, "ada": 4}
    assert await owners(outbox, 8) == {"flood": 8}
    back = [Retry(entry.seq, 0, 0, isolated=False) for entry in batch.entries]
    assert await outbox.queue.settle(Settlement(batch.claim, retry=back)) == 0
    assert await owners(outbox, 8) == {"flood": 4, "ada": 4}


async def test_rows_that_a_process_held_at_its_end_keep_their_share(storage: Storage) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
        await append_all(outbox, 60, "flood")
        await append_all(outbox, 4, "ada")
        await claim(outbox, ask(8))
    async with storage.open(fair_share=SMALL) as outbox:
        assert await owners(outbox, 8) == {"flood": 4, "ada": 4}


async def has_room(outbox: Outbox, user_id: str = "u-1", size: int = 600) -> bool:
    """Whether an event is accepted; it is removed again."""
    try:
        receipt = await outbox.intake.append(event(user_id, size=size))
    except (TooManyPendingError, OutboxFullError):
        return False
    await outbox.repairs.discard(Named((receipt.event_id,)), actor="ada")
    return True


async def test_an_owners_delivered_rows_count_until_they_or_their_payloads_are_purged(
    storage: Storage,
) -> None:
    async with storage.open(max_bytes_per_user=1000) as outbox:
        await outbox.intake.append(event(size=600))
        await deliver(outbox, await claim(outbox))
        with pytest.raises(TooManyPendingError, match="limit in bytes") as error:
            await outbox.intake.append(event(size=600))
        assert error.value.retry_after_seconds
        await outbox.intake.append(event("u-2", size=600))
        assert await outbox.repairs.purge_payloads(older_than_seconds=-1) == 1
        await eventually(lambda: has_room(outbox))
        await outbox.intake.append(event(size=300))
        await deliver(outbox, await claim(outbox))
        assert not await has_room(outbox, size=701)
        await eventually(lambda: has_room(outbox, size=700))
        assert await outbox.repairs.purge(older_than_seconds=-1, actor=None) == 3
        await eventually(lambda: has_room(outbox, size=1000))


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


async def test_an_event_that_is_not_stored_leaves_its_bytes_to_others(storage: Storage) -> None:
    async with storage.open(max_bytes_per_user=1000) as outbox:
        await outbox.intake.append(event(size=400), key=key("a"))
        for _ in range(3):
            assert (await outbox.intake.append(event(size=400), key=key("a"))).replayed
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


@pytest.mark.parametrize(
    ("limit", "user", "refusal"),
    [("max_pending_per_user", "u-1", TooManyPendingError), ("max_pending", "u-2", OutboxFullError)],
)
async def test_a_call_that_has_no_room_for_all_stores_nothing(
    storage: Storage, limit: str, user: str, refusal: type[TooManyPendingError | OutboxFullError]
) -> None:
    async with storage.open(**{limit: 4}) as outbox:
        await outbox.intake.append_all([event(), event()], (None, None))
        with pytest.raises(refusal) as error:
            await outbox.intake.append_all([event(user) for _ in range(3)], (None,) * 3)
        assert error.value.retry_after_seconds
        assert await pending(outbox) == 2
        await outbox.intake.append_all([event(user), event(user)], (None, None))


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
