"""An owner who fills the queue holds back nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from service.outbox.limits import FairShare
from service.outbox.model import Retry, Settlement
from tests.support.storage import (
    Outbox,
    Storage,
    append_all,
    ask,
    claim,
    deliver,
    event,
)

SMALL = FairShare(noisy_rows=50)


async def owners(outbox: Outbox, max_events: int, **changes: object) -> Counter[str]:
    batch = await claim(outbox, ask(max_events, **changes))
    await deliver(outbox, batch)
    return Counter(entry.user_id for entry in batch.entries)


async def test_a_claim_beside_a_flood_gives_half_to_those_who_have_few(storage: Storage) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
        await append_all(outbox, 200, "flood")
        await append_all(outbox, 30, "ada")
        assert await owners(outbox, 20) == {"flood": 10, "ada": 10}
        assert await owners(outbox, 20) == {"flood": 10, "ada": 10}
        await append_all(outbox, 1, "kim")
        assert await owners(outbox, 22) == {"flood": 11, "ada": 10, "kim": 1}
        assert await owners(outbox, 20) == {"flood": 20}


async def test_batches_of_one_go_to_both_in_turn(storage: Storage) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
        await append_all(outbox, 60, "flood")
        await append_all(outbox, 3, "ada")
        found = Counter[str]()
        for _ in range(4):
            found += await owners(outbox, 1)
        assert found == {"flood": 2, "ada": 2}


async def test_the_share_of_the_newest_stays_beside_a_flood(storage: Storage) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
        await append_all(outbox, 100, "flood")
        await append_all(outbox, 20, "ada")
        await append_all(outbox, 60, "flood")
        late = await append_all(outbox, 1, "flood")
        batch = await claim(outbox, ask(10, fresh_share=0.2))
        assert Counter(entry.user_id for entry in batch.entries) == {"flood": 5, "ada": 5}
        assert late[0].id in {entry.event_id for entry in batch.entries}


async def test_the_newest_alone_are_wanted_beside_a_flood(storage: Storage) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
        await append_all(outbox, 60, "flood")
        await append_all(outbox, 3, "ada")
        await append_all(outbox, 1, "flood")
        for _ in range(2):
            assert await owners(outbox, 1, fresh_share=1.0) in ({"flood": 1}, {"ada": 1})


async def test_a_large_row_at_the_head_waits_for_no_stream_of_small_ones(storage: Storage) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
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
    storage: Storage, owner: str, size: int, fresh_share: float
) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
        await outbox.intake.append(event("flood", size=size))
        for user_id, count, bytes_each in (
            ("flood", 60, 500),
            (owner, 3, size),
            ("flood", 10, 500),
        ):
            for _ in range(count):
                await outbox.intake.append(event(user_id, size=bytes_each))
        for _ in range(8):
            batch = await claim(outbox, ask(20, max_bytes=4000, fresh_share=fresh_share))
            commas = len(batch.entries) - 1
            assert len(batch.payloads) - commas <= 4000 or commas == 0
            await deliver(outbox, batch)


async def test_half_of_the_bytes_are_for_those_who_have_few(storage: Storage) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
        for user_id, count, size in (("flood", 60, 100), ("ada", 2, 100), ("ada", 2, 300)):
            events = [event(user_id, size=size) for _ in range(count)]
            await asyncio.gather(*(outbox.intake.append(one) for one in events))
        assert await owners(outbox, 10, max_bytes=400) == {"flood": 2, "ada": 2}
        found = Counter[str]()
        for _ in range(4):  # each has its turn with a row that is larger than half
            found += await owners(outbox, 10, max_bytes=400)
        assert found["ada"] == 2


async def test_the_share_outlives_a_restart(storage: Storage) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
        await append_all(outbox, 60, "flood")
        await append_all(outbox, 3, "ada")
    async with storage.open(fair_share=SMALL) as outbox:
        assert await owners(outbox, 4) == {"flood": 2, "ada": 2}


async def test_owners_without_a_flood_are_served_in_the_order_of_acceptance(
    storage: Storage,
) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
        for number in range(20):
            await append_all(outbox, 10, f"u-{number}")
        assert await owners(outbox, 20) == {"u-0": 10, "u-1": 10}


async def test_a_flood_that_is_over_marks_nobody(storage: Storage) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
        await append_all(outbox, 60, "flood")
        batch = await claim(outbox, ask(100))
        seqs = [entry.seq for entry in batch.entries]
        assert await outbox.queue.settle(Settlement(batch.claim, delivered=seqs)) == 0
        await append_all(outbox, 30, "first")
        await append_all(outbox, 30, "ada")
        assert await owners(outbox, 20) == {"first": 20}


async def test_rows_that_come_back_keep_their_share(storage: Storage) -> None:
    async with storage.open(fair_share=SMALL) as outbox:
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
