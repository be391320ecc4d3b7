"""Rows that Inngest has answered wait as `sent` until they are confirmed or sent again."""

from __future__ import annotations

import pytest

from service.outbox.inngest_id import PREFIX_BYTES
from service.outbox.model import Batch, Filter, Row, SentEntry, Settlement, State
from tests.support.storage import (
    Outbox,
    Storage,
    append_all,
    ask,
    claim,
    claims_nothing,
    deliver,
    eventually,
)

pytestmark = pytest.mark.in_memory_too


async def send(outbox: Outbox, batch: Batch) -> list[int]:
    """Settle a whole batch as sent."""
    seqs = [entry.seq for entry in batch.entries]
    assert await outbox.queue.settle(Settlement(batch.claim, sent=seqs)) == 0
    return seqs


async def find(outbox: Outbox, event_id: str) -> Row:
    row = await outbox.intake.find(event_id)
    assert row is not None
    return row


async def all_sent(outbox: Outbox) -> list[SentEntry]:
    """What a reader sees once the settlement has reached it."""
    parts = outbox.confirmations
    count = await parts.count_sent()
    return list(await eventually(lambda: parts.sent(1_000), lambda seen: len(seen) == count))


async def test_a_sent_row_is_neither_pending_nor_delivered(outbox: Outbox) -> None:
    [event] = await append_all(outbox, 1)
    await send(outbox, await claim(outbox))
    row = await find(outbox, event.id)
    assert (row.state, row.attempts, row.sends) == (State.SENT, 1, 1)
    assert row.first_sent_at_ms is not None
    assert await claims_nothing(outbox)
    stats = await eventually(outbox.inspector.stats, lambda seen: seen.sent == 1)
    assert (stats.pending, stats.delivering, stats.delivered) == (0, 0, 0)


async def test_sent_rows_are_shown_in_pages_by_their_number(outbox: Outbox) -> None:
    parts = outbox.confirmations
    events = await append_all(outbox, 5)
    seqs = await send(outbox, await claim(outbox))
    entries = await all_sent(outbox)
    assert [entry.seq for entry in entries] == seqs == sorted(seqs)
    assert [entry.event_id for entry in entries] == [event.id for event in events]
    assert all(0 <= entry.sent_seconds < 60 for entry in entries)
    assert [entry.sends for entry in entries] == [1] * 5
    assert [entry.seq for entry in await parts.sent(2)] == seqs[:2]
    assert [entry.seq for entry in await parts.sent(2, seqs[3])] == seqs[4:]
    assert not await parts.sent(2, seqs[4])


async def test_a_confirmed_row_is_delivered_once(outbox: Outbox) -> None:
    parts = outbox.confirmations
    events = await append_all(outbox, 3)
    seqs = await send(outbox, await claim(outbox))
    assert await parts.confirm(seqs[:2]) == 2
    assert await parts.confirm(seqs) == 1
    assert await parts.count_sent() == 0
    for event in events:
        row = await find(outbox, event.id)
        assert row.state is State.DELIVERED
        assert row.settled_at_ms is not None
    assert await claims_nothing(outbox)


async def test_a_row_that_is_sent_again_keeps_what_it_was(outbox: Outbox) -> None:
    parts = outbox.confirmations
    [event] = await append_all(outbox, 1)
    seqs = await send(outbox, await claim(outbox))
    before = await find(outbox, event.id)
    assert await parts.resend(seqs, "Inngest lost it") == 1
    assert await parts.resend(seqs, "Inngest lost it") == 0
    row = await find(outbox, event.id)
    assert row.state is State.PENDING
    assert (row.attempts, row.sends) == (0, 1)
    assert row.first_sent_at_ms == before.first_sent_at_ms
    assert [note["note"] for note in row.history] == ["Inngest lost it"]
    batch = await claim(outbox)
    assert [entry.seq for entry in batch.entries] == seqs
    assert batch.entries[0].first_sent_at_ms == before.first_sent_at_ms
    await send(outbox, batch)
    assert [entry.sends for entry in await all_sent(outbox)] == [2]


async def test_only_sent_rows_are_confirmed_or_sent_again(outbox: Outbox) -> None:
    parts = outbox.confirmations
    await append_all(outbox, 3)
    delivered = await claim(outbox, ask(1))
    await deliver(outbox, delivered)
    claimed = await claim(outbox, ask(1))
    seqs = [batch.entries[0].seq for batch in (delivered, claimed)]
    assert await parts.confirm([*seqs, 999]) == 0
    assert await parts.resend([*seqs, 999], "no") == 0
    assert await deliver(outbox, claimed) == 0


async def test_a_batch_may_be_settled_in_parts(outbox: Outbox) -> None:
    parts = outbox.confirmations
    await append_all(outbox, 4)
    batch = await claim(outbox)
    seqs = [entry.seq for entry in batch.entries]
    queue = outbox.queue
    assert await queue.settle(Settlement(batch.claim, sent=seqs[:2])) == 0
    assert await queue.settle(Settlement(batch.claim, delivered=seqs[2:])) == 0
    assert await queue.settle(Settlement(batch.claim, sent=seqs[:1])) == 1
    assert await parts.count_sent() == 2


async def test_sent_rows_outlive_a_restart_under_the_same_ulids(storage: Storage) -> None:
    async with storage.open() as outbox:
        parts = outbox.confirmations
        [event] = await append_all(outbox, 1)
        await send(outbox, await claim(outbox))
        [entry] = await all_sent(outbox)
        ids = parts.inngest_ids
        ulid = ids.ulid(entry.seq, entry.accepted_at_ms)
        assert len(ids.prefix) == PREFIX_BYTES
    async with storage.open() as outbox:
        [again] = await all_sent(outbox)
        assert (again.seq, again.event_id) == (entry.seq, event.id)
        assert outbox.confirmations.inngest_ids.ulid(again.seq, again.accepted_at_ms) == ulid
        assert (await find(outbox, event.id)).inngest_id == ulid


async def test_the_numbers_of_rows_follow_each_other_without_a_gap(outbox: Outbox) -> None:
    await append_all(outbox, 5)
    seqs = [entry.seq for entry in (await claim(outbox)).entries]
    assert seqs == list(range(seqs[0], seqs[0] + 5))


async def test_delivered_rows_are_shown_in_pages_and_by_age(outbox: Outbox) -> None:
    parts = outbox.confirmations
    events = await append_all(outbox, 3)
    batch = await claim(outbox)
    await deliver(outbox, batch)
    seen = await eventually(lambda: parts.delivered(10), lambda rows: len(rows) == 3)
    assert [entry.event_id for entry in seen] == [event.id for event in events]
    assert [entry.seq for entry in await parts.delivered(1, seen[0].seq)] == [seen[1].seq]
    assert len(await parts.delivered(10, within_seconds=3_600)) == 3
    assert not await parts.delivered(10, within_seconds=0)


async def test_a_sent_row_is_found_by_its_state(outbox: Outbox) -> None:
    events = await append_all(outbox, 2)
    await send(outbox, await claim(outbox, ask(1)))
    rows = await eventually(lambda: outbox.inspector.rows(Filter(state=State.SENT)))
    assert [row.id for row in rows] == [events[0].id]


async def test_a_process_that_is_alone_asks_about_all_sent_rows(outbox: Outbox) -> None:
    assert await outbox.confirmations.may_ask()
    await outbox.confirmations.stop_asking()
    assert await outbox.confirmations.may_ask()
