"""What a claim takes: the oldest first, a share of the newest, isolated rows alone; leases."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.model import Batch, ClaimRequest, Isolated, Retry, Settlement, State
from tests.support.storage import (
    Outbox,
    Storage,
    append_all,
    ask,
    claim,
    claims_nothing,
    deliver,
    event,
    eventually,
    ids,
)

pytestmark = pytest.mark.in_memory_too


async def test_a_claim_gives_the_oldest_first_and_each_row_once(outbox: Outbox) -> None:
    events = [each.id for each in await append_all(outbox, 9)]
    batches = [await claim(outbox, ask(most)) for most in (1, 1, 4, 4)]
    assert list(map(ids, batches)) == [events[:1], events[1:2], events[2:6], events[6:]]
    assert len({batch.claim for batch in batches}) == 4
    assert await claims_nothing(outbox)


async def test_an_entry_carries_what_a_sender_needs(outbox: Outbox) -> None:
    sent = msgspec.structs.replace(event(), meta=Meta("order-1", "branch", trace="00-trace"))
    await outbox.intake.append(sent)
    batch = await claim(outbox)
    [entry] = batch.entries
    assert (entry.event_id, entry.accepted_at_ms) == (sent.id, sent.accepted_at_ms)
    assert (entry.attempts, entry.isolated, entry.sends) == (0, False, 0)
    assert entry.first_sent_at_ms is None
    assert (entry.user_id, entry.meta) == (sent.user_id, sent.meta)
    assert batch.payloads == sent.payload


async def places(outbox: Outbox, count: int, wanted: ClaimRequest) -> list[int]:
    """The places, from 1, that a claim takes of so many rows of 100 bytes. Then all are gone."""
    events = [event(size=100) for _ in range(count)]
    await asyncio.gather(*(outbox.intake.append(each) for each in events))
    batch = await claim(outbox, wanted)
    await deliver(outbox, batch)
    if len(batch.entries) < count:
        await deliver(outbox, await claim(outbox))
    numbers = {each.id: place for place, each in enumerate(events, 1)}
    return [numbers[one] for one in ids(batch)]


async def test_the_oldest_rows_are_taken_up_to_both_bounds_and_one_always(outbox: Outbox) -> None:
    for max_events, max_bytes, taken in (
        (2, 1000, [1, 2]),
        (10, 1000, [1, 2, 3, 4]),
        (4, 400, [1, 2, 3, 4]),
        (10, 400, [1, 2, 3, 4]),
        (10, 399, [1, 2, 3]),
        (10, 200, [1, 2]),
        (10, 199, [1]),
        (10, 50, [1]),
        (1, 50, [1]),
        (2, 150, [1]),
    ):
        assert await places(outbox, 4, ask(max_events, max_bytes=max_bytes)) == taken, taken


async def test_the_newest_rows_have_their_share_of_rows_and_bytes(outbox: Outbox) -> None:
    for count, wanted, taken in (
        (10, ask(4, fresh_share=0.5), [1, 2, 9, 10]),
        (10, ask(4, fresh_share=0.25), [1, 2, 3, 10]),
        (10, ask(4, fresh_share=1.0), [7, 8, 9, 10]),
        (10, ask(1, fresh_share=0.5), [1]),
        (10, ask(1, fresh_share=1.0), [10]),
        (4, ask(4, fresh_share=0.5), [1, 2, 3, 4]),
        (3, ask(8, fresh_share=0.5), [1, 2, 3]),
        (2, ask(2, fresh_share=1.0), [1, 2]),
        (10, ask(6, fresh_share=0.5, max_bytes=400), [1, 2, 9, 10]),
        (10, ask(6, fresh_share=0.25, max_bytes=300), [1, 2, 3]),
        (10, ask(6, fresh_share=0.5, max_bytes=50), [1]),
        (10, ask(6, fresh_share=1.0, max_bytes=250), [9, 10]),
        (10, ask(6, fresh_share=1.0, max_bytes=50), [10]),
    ):
        assert await places(outbox, count, wanted) == taken, wanted
    events = [each.id for each in await append_all(outbox, 20)]
    assert ids(await claim(outbox, ask(8, fresh_share=0.25))) == events[:6] + events[-2:]
    assert ids(await claim(outbox, ask(4, fresh_share=0.25))) == [*events[6:9], events[17]]


async def test_the_newest_rows_share_has_no_row_that_is_isolated_or_delayed(outbox: Outbox) -> None:
    events = await append_all(outbox, 6)
    newest = await claim(outbox, ask(2, fresh_share=1.0))
    five, six = (entry.seq for entry in newest.entries)
    again = [Retry(five, 60, 0, isolated=False), Retry(six, 0, 0, isolated=True)]
    await outbox.queue.settle(Settlement(newest.claim, retry=again))
    batch = await claim(outbox, ask(2, fresh_share=0.5, isolated=Isolated.NONE))
    assert ids(batch) == [events[0].id, events[3].id]


async def test_many_batches_drain_without_a_row_left_or_doubled(outbox: Outbox) -> None:
    events = [event(f"u-{n % 5}") for n in range(400)]
    await asyncio.gather(*(outbox.intake.append(each) for each in events))
    got: list[str] = []

    async def send(batch: Batch) -> None:
        got.extend(ids(batch))
        await deliver(outbox, batch)

    async def work() -> None:
        while len(got) < 400:
            await send(await outbox.queue.claim(ask(37)))

    workers = [asyncio.create_task(work()) for _ in range(3)]
    try:
        await eventually(outbox.inspector.stats, lambda stats: stats.delivered == 400)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    assert sorted(got) == sorted(each.id for each in events)


async def isolate(outbox: Outbox) -> str:
    """Append an event and settle it so that it must be sent alone; returns its id."""
    sent = event()
    await outbox.intake.append(sent)
    batch = await claim(outbox)
    assert ids(batch) == [sent.id]
    retry = Retry(batch.entries[0].seq, 0, attempts=1, isolated=True)
    await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
    return sent.id


async def test_an_isolated_row_comes_alone_and_first_last_or_not_at_all(outbox: Outbox) -> None:
    isolated = await isolate(outbox)
    others = [each.id for each in await append_all(outbox, 3)]
    batch = await claim(outbox, ask(isolated=Isolated.FIRST))
    assert ids(batch) == [isolated]
    assert (batch.entries[0].isolated, batch.entries[0].attempts) == (True, 1)
    assert ids(await claim(outbox, ask(isolated=Isolated.FIRST))) == others
    isolated = await isolate(outbox)
    others = [each.id for each in await append_all(outbox, 3)]
    assert ids(await claim(outbox, ask(isolated=Isolated.LAST))) == others
    assert await claims_nothing(outbox, ask(isolated=Isolated.NONE))
    assert ids(await claim(outbox, ask(isolated=Isolated.LAST))) == [isolated]
    isolated = await isolate(outbox)
    [other] = await append_all(outbox, 1)
    assert ids(await claim(outbox, ask(isolated=Isolated.NONE))) == [other.id]
    assert ids(await claim(outbox)) == [isolated]


async def test_isolated_rows_come_one_by_one(outbox: Outbox) -> None:
    events = await append_all(outbox, 2)
    batch = await claim(outbox)
    again = [Retry(entry.seq, 0, attempts=1, isolated=True) for entry in batch.entries]
    await outbox.queue.settle(Settlement(batch.claim, retry=again))
    batches = [ids(await claim(outbox)) for _ in events]
    assert sorted(batches) == sorted([each.id] for each in events)


async def test_a_claimed_row_is_delivering_under_its_lease(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    await claim(outbox, ask(lease_seconds=30))
    row = await outbox.intake.find(sent.id)
    assert row.state is State.DELIVERING
    assert 20 < row.lease_in_seconds <= 30
    assert row.first_sent_at_ms is not None
    assert row.due_in_seconds is None


async def test_a_lease_that_ends_makes_its_rows_due_and_the_old_claim_void(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    late = await claim(outbox, ask(lease_seconds=0.1))

    async def lease() -> float | None:
        return (await outbox.intake.find(sent.id)).lease_in_seconds

    await eventually(lease, lambda left: not left)  # at 0 or due again, and never below
    batch = await claim(outbox)
    assert ids(batch) == [sent.id]
    [entry] = batch.entries
    assert (entry.sends, entry.attempts) == (1, 0)
    assert entry.first_sent_at_ms is not None
    assert await deliver(outbox, late) == 1
    row = await outbox.intake.find(sent.id)
    assert row.state is State.DELIVERING
    assert await deliver(outbox, batch) == 0


async def test_of_an_ended_lease_only_the_rows_that_were_not_settled_come_back(
    outbox: Outbox,
) -> None:
    events = await append_all(outbox, 5)
    await claim(outbox, ask(2, lease_seconds=60))
    batch = await claim(outbox, ask(3, lease_seconds=2.0))
    three, _, five = (entry.seq for entry in batch.entries)
    await outbox.queue.settle(Settlement(batch.claim, delivered=[three, five]))
    assert ids(await claim(outbox)) == [events[3].id]
    assert await claims_nothing(outbox)


async def test_claimed_rows_are_due_after_a_restart(storage: Storage) -> None:
    async with storage.open() as outbox:
        events = await append_all(outbox, 3)
        first = await claim(outbox, ask(lease_seconds=600))
    async with storage.open() as outbox:
        batch = await claim(outbox)
        assert ids(batch) == [each.id for each in events]
        assert all(entry.sends == 1 for entry in batch.entries)
        assert all(entry.first_sent_at_ms is not None for entry in batch.entries)
        assert await deliver(outbox, first) == 3
        assert await deliver(outbox, batch) == 0
