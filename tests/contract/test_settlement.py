"""Each row ends its own way, once, under its claim; `sent` rows wait until they are confirmed."""

from __future__ import annotations

import asyncio

import pytest

from inngest_outbox.outbox.inngest_id import PREFIX_BYTES
from inngest_outbox.outbox.model import (
    Batch,
    Dead,
    Filter,
    Named,
    Retry,
    Row,
    SentEntry,
    Settlement,
    State,
)
from tests.support.storage import (
    Outbox,
    Storage,
    append_all,
    ask,
    claim,
    claims_nothing,
    deliver,
    eventually,
    ids,
)

pytestmark = pytest.mark.in_memory_too


async def find(outbox: Outbox, event_id: str) -> Row:
    row = await outbox.intake.find(event_id)
    assert row is not None
    return row


async def test_a_row_is_delivered_once_under_its_claim(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    batch = await claim(outbox)
    seq = batch.entries[0].seq
    assert await outbox.queue.settle(Settlement(batch.claim)) == 0
    dead = [Dead(seq, attempts=9, reason="late", detail="late")]
    retry = [Retry(seq, 0, attempts=9, isolated=False)]
    for way in ({"delivered": [seq]}, {"sent": [seq]}, {"retry": retry}, {"dead": dead}):
        assert await outbox.queue.settle(Settlement("nobody", **way)) == 1
    assert (await find(outbox, sent.id)).state is State.DELIVERING
    assert await deliver(outbox, batch) == 0
    assert await deliver(outbox, batch) == 1
    assert await outbox.queue.settle(Settlement(batch.claim, dead=dead)) == 1
    row = await find(outbox, sent.id)
    assert (row.state, row.attempts, row.sends) == (State.DELIVERED, 1, 1)
    assert row.settled_at_ms is not None
    assert row.first_sent_at_ms is not None
    assert (row.due_in_seconds, row.lease_in_seconds) == (None, None)
    assert await claims_nothing(outbox)


async def test_a_row_settled_again_keeps_its_history_and_first_sending(outbox: Outbox) -> None:
    """Its notes come oldest first. Rows that come back keep their order, before fresh ones."""
    events = [each.id for each in await append_all(outbox, 4)]
    batch = await claim(outbox, ask(2))
    for note in ("HTTP 500: no\x00 luck", None, "two"):
        again = [Retry(one.seq, 0, attempts=3, isolated=False, note=note) for one in batch.entries]
        await outbox.queue.settle(Settlement(batch.claim, retry=again))
        row = await find(outbox, events[0])
        batch = await claim(outbox, ask(2))
        assert ids(batch) == events[:2]
    assert (row.state, row.attempts, row.sends) == (State.PENDING, 3, 3)
    first, second = row.history
    assert first.note.startswith("HTTP 500: no")
    assert second.note == "two"
    entry = batch.entries[0]
    assert (entry.attempts, entry.sends, entry.isolated) == (3, 3, False)
    assert entry.first_sent_at_ms == row.first_sent_at_ms
    assert ids(await claim(outbox)) == events[2:]


async def test_of_more_than_twenty_notes_the_oldest_go(outbox: Outbox) -> None:
    """Also where a replay or a lost answer adds one."""

    async def notes() -> list[object]:
        return [note.note for note in (await find(outbox, sent.id)).history]

    [sent] = await append_all(outbox, 1)
    for number in range(22):
        batch = await claim(outbox)
        [seq] = (entry.seq for entry in batch.entries)
        again = Retry(seq, 0, attempts=0, isolated=False, note=str(number))
        await outbox.queue.settle(Settlement(batch.claim, retry=[again]))
    assert await notes() == [str(number) for number in range(2, 22)]
    dead = [Dead(seq, 1, "rejected", "no")]
    await outbox.queue.settle(Settlement((await claim(outbox)).claim, dead=dead))
    assert await outbox.repairs.replay(Named((sent.id,)), actor="ada") == [sent.id]
    assert await notes() == [*(str(number) for number in range(3, 22)), "replayed by ada"]
    seqs = await send(outbox, await claim(outbox))
    assert await outbox.confirmations.resend(seqs, "lost") == 1
    assert (await notes())[-2:] == ["replayed by ada", "lost"]
    assert len(await notes()) == 20


async def test_a_row_keeps_its_past_on_each_way_out_of_a_claim(outbox: Outbox) -> None:
    """Also where its lease ends."""
    for way, state, attempts in (
        ("delivered", State.DELIVERED, 4),
        ("sent", State.SENT, 4),
        ("dead", State.DEAD, 9),
        ("", State.DELIVERING, 3),
    ):
        [sent] = await append_all(outbox, 1)
        batch = await claim(outbox)
        seq = batch.entries[0].seq
        retry = Retry(seq, 0, attempts=3, isolated=True, note="HTTP 500")
        await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
        before = await find(outbox, sent.id)
        again = await claim(outbox, ask(lease_seconds=30 if way else 0.1))
        ways = {"delivered": [seq], "sent": [seq], "dead": [Dead(seq, attempts, "rejected", "no")]}
        if way:
            assert await outbox.queue.settle(Settlement(again.claim, **{way: ways[way]})) == 0
        else:
            assert ids(await claim(outbox)) == [sent.id]
        row = await find(outbox, sent.id)
        assert (row.state, row.attempts, row.sends) == (state, attempts, 2)
        assert (row.isolated, row.history) == (True, before.history)
        assert row.first_sent_at_ms == before.first_sent_at_ms


async def test_a_dead_row_keeps_its_reason_and_is_never_claimed(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    batch = await claim(outbox)
    dead = Dead(batch.entries[0].seq, attempts=4, reason="rejected", detail="no such\x00 thing")
    assert await outbox.queue.settle(Settlement(batch.claim, dead=[dead])) == 0
    row = await find(outbox, sent.id)
    assert (row.state, row.attempts, row.sends, row.reason) == (State.DEAD, 4, 1, "rejected")
    assert row.first_sent_at_ms is not None
    assert str(row.detail).startswith("no such")
    assert row.settled_at_ms is not None
    assert await claims_nothing(outbox)


async def test_one_settlement_settles_each_row_its_own_way(outbox: Outbox) -> None:
    """Those that it does not name stay claimed."""
    events = await append_all(outbox, 5)
    batch = await claim(outbox)
    one, two, three, four, five = (entry.seq for entry in batch.entries)
    settlement = Settlement(
        batch.claim,
        delivered=[one, two],
        retry=[Retry(three, 0, attempts=1, isolated=False)],
        dead=[Dead(four, attempts=1, reason="too_large", detail="413")],
    )
    assert await outbox.queue.settle(settlement) == 0
    states = [(await find(outbox, each.id)).state for each in events]
    assert states == ["delivered", "delivered", "pending", "dead", "delivering"]
    assert await outbox.queue.settle(Settlement(batch.claim, delivered=[one, two, five])) == 2
    assert (await outbox.inspector.stats()).delivered == 3


async def test_parts_that_settle_at_once_have_a_result_each(outbox: Outbox) -> None:
    await append_all(outbox, 6)
    batch = await claim(outbox)
    one, two, three, four, five, six = (entry.seq for entry in batch.entries)
    assert await outbox.queue.settle(Settlement(batch.claim, delivered=[one])) == 0
    parts = [
        Settlement(batch.claim, delivered=[two]),
        Settlement(batch.claim, delivered=[one, three]),
        Settlement(batch.claim, sent=[one]),
        Settlement(batch.claim, retry=[Retry(four, 0, attempts=1, isolated=False)]),
        Settlement(batch.claim, dead=[Dead(five, attempts=1, reason="too_large", detail="413")]),
        Settlement(batch.claim, sent=[six]),
    ]
    assert await asyncio.gather(*map(outbox.queue.settle, parts)) == [0, 1, 1, 0, 0, 0]
    assert await outbox.queue.settle(parts[-1]) == 1
    stats = await outbox.inspector.stats()
    assert (stats.delivered, stats.pending, stats.dead, stats.sent) == (3, 1, 1, 1)


async def test_a_caller_that_is_cancelled_takes_no_other_settlement_with_it(outbox: Outbox) -> None:
    await append_all(outbox, 2)
    batch = await claim(outbox)
    gone, other = (
        asyncio.create_task(outbox.queue.settle(Settlement(batch.claim, delivered=[entry.seq])))
        for entry in batch.entries
    )
    await asyncio.sleep(0)
    gone.cancel()
    assert await other == 0


async def send(outbox: Outbox, batch: Batch) -> list[int]:
    """Settle a whole batch as sent."""
    seqs = [entry.seq for entry in batch.entries]
    assert await outbox.queue.settle(Settlement(batch.claim, sent=seqs)) == 0
    return seqs


async def all_sent(outbox: Outbox) -> list[SentEntry]:
    """What a reader sees once the settlement has reached it."""
    parts = outbox.confirmations
    count = await parts.count_sent()
    return list(await eventually(lambda: parts.sent(1_000), lambda seen: len(seen) == count))


async def test_sent_rows_are_shown_in_pages_by_their_number_which_has_no_gap(
    outbox: Outbox,
) -> None:
    parts = outbox.confirmations
    events = await append_all(outbox, 6)
    seqs = await send(outbox, await claim(outbox, ask(5)))
    assert seqs == list(range(seqs[0], seqs[0] + 5))
    entries = await all_sent(outbox)
    assert [entry.seq for entry in entries] == seqs
    assert [entry.event_id for entry in entries] == [event.id for event in events[:5]]
    assert all(0 <= entry.sent_seconds < 60 for entry in entries)
    assert [entry.sends for entry in entries] == [1] * 5
    assert [entry.seq for entry in await parts.sent(2)] == seqs[:2]
    assert [entry.seq for entry in await parts.sent(2, seqs[3])] == seqs[4:]
    assert not await parts.sent(2, seqs[4])
    rows = await eventually(lambda: outbox.inspector.rows(Filter(state=State.SENT)))
    assert [row.id for row in rows] == [event.id for event in events[4::-1]]


async def test_a_sent_row_is_delivered_once_when_it_is_confirmed_and_pending_never(
    outbox: Outbox,
) -> None:
    parts = outbox.confirmations
    events = await append_all(outbox, 3)
    seqs = await send(outbox, await claim(outbox))
    row = await find(outbox, events[0].id)
    assert (row.state, row.attempts, row.sends) == (State.SENT, 1, 1)
    assert row.first_sent_at_ms is not None
    stats = await eventually(outbox.inspector.stats, lambda seen: seen.sent == 3)
    assert (stats.pending, stats.delivering, stats.delivered) == (0, 0, 0)
    assert await parts.confirm(seqs[:1]) == 1
    assert await claims_nothing(outbox)
    assert await parts.confirm(seqs) == 2
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
    assert [note.note for note in row.history] == ["Inngest lost it"]
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


async def test_a_process_that_is_alone_asks_about_all_sent_rows(outbox: Outbox) -> None:
    assert await outbox.confirmations.may_ask()
    await outbox.confirmations.stop_asking()
    assert await outbox.confirmations.may_ask()
