from __future__ import annotations

import asyncio

import pytest

from service.outbox.outbox import Again, Batch, Dead, Settlement, State, Suspects
from tests.contract.storage import (
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


async def suspect(outbox: Outbox, delay_seconds: float = 0.0) -> str:
    """Append an event and settle it so that it must be sent alone; returns its id."""
    sent = event()
    await outbox.append(sent)
    batch = await claim(outbox)
    assert ids(batch) == [sent.id]
    again = Again(batch.entries[0].seq, delay_seconds, attempts=1, alone=True)
    await outbox.settle(Settlement(batch.claim, again=[again]))
    return sent.id


async def test_a_claim_gives_the_oldest_first_and_each_row_once(outbox: Outbox) -> None:
    events = await append_all(outbox, 7)
    first, second = await claim(outbox, ask(4)), await claim(outbox, ask(4))
    assert ids(first) == [each.id for each in events[:4]]
    assert ids(second) == [each.id for each in events[4:]]
    assert first.claim != second.claim
    assert await claims_nothing(outbox)


async def test_an_entry_carries_what_a_sender_needs(outbox: Outbox) -> None:
    sent = event()
    await outbox.append(sent, trace="00-trace")
    batch = await claim(outbox)
    [entry] = batch.entries
    assert (entry.event_id, entry.accepted_at_ms) == (sent.id, sent.accepted_at_ms)
    assert (entry.attempts, entry.alone, entry.sends, entry.first_sent_at_ms) == (0, False, 0, None)
    assert (entry.user_id, entry.trace) == (sent.user_id, "00-trace")
    assert batch.payloads == sent.payload


async def test_claims_at_one_moment_share_no_row(outbox: Outbox) -> None:
    events = await append_all(outbox, 60)
    batches = await asyncio.gather(*(claim(outbox, ask(10)) for _ in range(6)))
    claimed = [event_id for batch in batches for event_id in ids(batch)]
    assert sorted(claimed) == sorted(each.id for each in events)


async def test_a_claimed_row_is_delivering_under_its_lease(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    await claim(outbox, ask(lease_seconds=30))
    row = await outbox.find(sent.id)
    assert row is not None
    assert row.state is State.DELIVERING
    assert row.lease_in_seconds is not None
    assert 20 < row.lease_in_seconds <= 30
    assert row.first_sent_at_ms is not None
    assert row.due_in_seconds is None


async def test_a_claim_stays_within_the_bytes_that_are_wanted(outbox: Outbox) -> None:
    for _ in range(5):
        await outbox.append(event(size=1000))
    assert len((await claim(outbox, ask(max_bytes=2500))).entries) == 2
    assert len((await claim(outbox, ask(max_bytes=3000))).entries) == 3


async def test_one_row_is_taken_however_large(outbox: Outbox) -> None:
    large, small = event(size=5000), event(size=300)
    await outbox.append(large)
    await outbox.append(small)
    assert ids(await claim(outbox, ask(max_bytes=10))) == [large.id]
    assert ids(await claim(outbox, ask(max_bytes=10, fresh_share=0.5))) == [small.id]


async def test_a_share_of_a_claim_is_the_newest_rows(outbox: Outbox) -> None:
    events = [each.id for each in await append_all(outbox, 20)]
    batch = await claim(outbox, ask(8, fresh_share=0.25))
    assert ids(batch) == events[:6] + events[-2:]
    assert ids(await claim(outbox, ask(4, fresh_share=0.25))) == [*events[6:9], events[17]]


async def test_the_newest_rows_have_their_share_of_the_bytes_too(outbox: Outbox) -> None:
    events = [event(size=1000) for _ in range(30)]
    for each in events:
        await outbox.append(each)
    batch = await claim(outbox, ask(20, max_bytes=5000, fresh_share=0.4))
    assert ids(batch) == [each.id for each in (*events[:3], *events[-2:])]


async def test_the_whole_share_is_the_newest_rows_one_at_least(outbox: Outbox) -> None:
    events = [each.id for each in await append_all(outbox, 5)]
    assert ids(await claim(outbox, ask(1, fresh_share=1.0))) == events[4:]
    assert ids(await claim(outbox, ask(1, max_bytes=10, fresh_share=1.0))) == events[3:4]
    assert ids(await claim(outbox, ask(1, fresh_share=0.0))) == events[:1]


async def test_a_share_never_leaves_out_what_there_is_room_for(outbox: Outbox) -> None:
    events = [each.id for each in await append_all(outbox, 3)]
    assert ids(await claim(outbox, ask(8, fresh_share=0.5))) == events


async def test_a_suspect_comes_first_and_alone(outbox: Outbox) -> None:
    alone = await suspect(outbox)
    others = [each.id for each in await append_all(outbox, 3)]
    batch = await claim(outbox, ask(suspects=Suspects.FIRST))
    assert ids(batch) == [alone]
    assert batch.entries[0].alone
    assert batch.entries[0].attempts == 1
    assert ids(await claim(outbox, ask(suspects=Suspects.FIRST))) == others


async def test_a_suspect_comes_last_and_alone(outbox: Outbox) -> None:
    alone = [await suspect(outbox)]
    others = [each.id for each in await append_all(outbox, 3)]
    assert ids(await claim(outbox, ask(suspects=Suspects.LAST))) == others
    assert ids(await claim(outbox, ask(suspects=Suspects.LAST))) == alone


async def test_no_suspect_comes_when_none_is_wanted(outbox: Outbox) -> None:
    alone = await suspect(outbox)
    [other] = await append_all(outbox, 1)
    assert ids(await claim(outbox, ask(suspects=Suspects.NONE))) == [other.id]
    assert await claims_nothing(outbox, ask(suspects=Suspects.NONE))
    assert ids(await claim(outbox)) == [alone]


async def test_a_delayed_suspect_waits_for_its_time(outbox: Outbox) -> None:
    alone = await suspect(outbox, delay_seconds=0.3)
    others = [each.id for each in await append_all(outbox, 2)]
    assert ids(await claim(outbox)) == others
    assert ids(await claim(outbox)) == [alone]


async def test_a_waiting_claim_wakes_when_an_event_is_appended(outbox: Outbox) -> None:
    waiting = asyncio.create_task(claim(outbox))
    assert await claims_nothing(outbox)
    [sent] = await append_all(outbox, 1)
    assert ids(await waiting) == [sent.id]


async def test_a_waiting_claim_wakes_when_a_delay_is_over(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    batch = await claim(outbox)
    again = Again(batch.entries[0].seq, 0.2, attempts=0, alone=False)
    await outbox.settle(Settlement(batch.claim, again=[again]))
    row = await outbox.find(sent.id)
    assert row is not None
    assert row.state is State.PENDING
    assert row.due_in_seconds is not None
    assert 0 < row.due_in_seconds <= 0.2
    assert ids(await claim(outbox)) == [sent.id]


async def test_a_delayed_row_is_not_claimed_before_its_time(outbox: Outbox) -> None:
    await append_all(outbox, 2)
    batch = await claim(outbox)
    one, two = (entry.seq for entry in batch.entries)
    agains = [Again(one, 60, attempts=0, alone=False), Again(two, 60, attempts=1, alone=True)]
    await outbox.settle(Settlement(batch.claim, again=agains))
    [fresh] = await append_all(outbox, 1)
    assert ids(await claim(outbox)) == [fresh.id]
    assert await claims_nothing(outbox)


async def test_waiting_claims_each_get_rows(outbox: Outbox) -> None:
    waiting = [asyncio.create_task(claim(outbox, ask(1))) for _ in range(4)]
    events = await append_all(outbox, 4)
    batches = await asyncio.gather(*waiting)
    assert sorted(ids(batch)[0] for batch in batches) == sorted(each.id for each in events)


async def test_a_cancelled_claim_leaves_nothing_claimed(outbox: Outbox) -> None:
    events = await append_all(outbox, 5)
    for _ in range(10):
        waiting = asyncio.create_task(outbox.claim(ask()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    batch = await claim(outbox)
    got = ids(batch)
    while len(got) < 5:
        got += ids(await claim(outbox))
    assert sorted(got) == sorted(each.id for each in events)
    assert batch.entries[0].first_sent_at_ms is None


async def test_a_claim_cancelled_while_it_waits_takes_nothing_later(outbox: Outbox) -> None:
    waiting = asyncio.create_task(outbox.claim(ask()))
    assert await claims_nothing(outbox)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    [sent] = await append_all(outbox, 1)
    assert ids(await claim(outbox)) == [sent.id]


async def test_a_delivered_row_is_delivered(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    assert await deliver(outbox, await claim(outbox)) == 0
    row = await outbox.find(sent.id)
    assert row is not None
    assert row.state is State.DELIVERED
    assert (row.attempts, row.sends) == (1, 1)
    assert row.settled_at_ms is not None
    assert row.first_sent_at_ms is not None
    assert (row.due_in_seconds, row.lease_in_seconds) == (None, None)
    assert await claims_nothing(outbox)


async def test_a_row_settled_again_keeps_its_history_and_first_sending(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    batch = await claim(outbox)
    again = Again(batch.entries[0].seq, 0, attempts=3, alone=True, note="HTTP 500: no\x00 luck")
    await outbox.settle(Settlement(batch.claim, again=[again]))
    row = await outbox.find(sent.id)
    assert row is not None
    assert (row.state, row.attempts, row.sends, row.alone) == (State.PENDING, 3, 1, True)
    [note] = row.history
    assert isinstance(note["at"], int)
    assert str(note["note"]).startswith("HTTP 500: no")
    [entry] = (await claim(outbox)).entries
    assert (entry.attempts, entry.sends, entry.alone) == (3, 1, True)
    assert entry.first_sent_at_ms == row.first_sent_at_ms


async def test_notes_come_oldest_first(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    for note in ("one", None, "two"):
        batch = await claim(outbox)
        again = Again(batch.entries[0].seq, 0, attempts=0, alone=False, note=note)
        await outbox.settle(Settlement(batch.claim, again=[again]))
    row = await outbox.find(sent.id)
    assert row is not None
    assert [note["note"] for note in row.history] == ["one", "two"]


async def test_a_dead_row_keeps_its_reason_and_is_never_claimed(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    batch = await claim(outbox)
    dead = Dead(batch.entries[0].seq, attempts=4, reason="rejected", detail="no such\x00 thing")
    assert await outbox.settle(Settlement(batch.claim, dead=[dead])) == 0
    row = await outbox.find(sent.id)
    assert row is not None
    assert (row.state, row.attempts, row.reason) == (State.DEAD, 4, "rejected")
    assert str(row.detail).startswith("no such")
    assert row.settled_at_ms is not None
    assert await claims_nothing(outbox)


async def test_one_settlement_settles_each_row_its_own_way(outbox: Outbox) -> None:
    events = await append_all(outbox, 4)
    batch = await claim(outbox)
    one, two, three, four = (entry.seq for entry in batch.entries)
    settlement = Settlement(
        batch.claim,
        delivered=[one, two],
        again=[Again(three, 0, attempts=1, alone=False)],
        dead=[Dead(four, attempts=1, reason="too_large", detail="413")],
    )
    assert await outbox.settle(settlement) == 0
    rows = [await outbox.find(each.id) for each in events]
    assert [row and row.state for row in rows] == ["delivered", "delivered", "pending", "dead"]


async def test_rows_that_a_settlement_does_not_name_stay_claimed(outbox: Outbox) -> None:
    events = await append_all(outbox, 3)
    batch = await claim(outbox)
    one, two, three = (entry.seq for entry in batch.entries)
    assert await outbox.settle(Settlement(batch.claim, delivered=[one])) == 0
    rows = [await outbox.find(each.id) for each in events]
    assert [row and row.state for row in rows] == ["delivered", "delivering", "delivering"]
    assert await outbox.settle(Settlement(batch.claim, delivered=[one, two, three])) == 1
    assert (await outbox.stats()).delivered == 3


async def test_a_settlement_repeated_changes_nothing(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    batch = await claim(outbox)
    assert await deliver(outbox, batch) == 0
    assert await deliver(outbox, batch) == 1
    dead = Dead(batch.entries[0].seq, attempts=9, reason="late", detail="late")
    assert await outbox.settle(Settlement(batch.claim, dead=[dead])) == 1
    row = await outbox.find(sent.id)
    assert row is not None
    assert (row.state, row.attempts) == (State.DELIVERED, 1)


async def test_a_settlement_under_no_claim_changes_nothing(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    batch = await claim(outbox)
    assert await outbox.settle(Settlement("nobody", delivered=[batch.entries[0].seq])) == 1
    row = await outbox.find(sent.id)
    assert row is not None
    assert row.state is State.DELIVERING


async def test_an_empty_settlement_settles_nothing(outbox: Outbox) -> None:
    await append_all(outbox, 1)
    batch = await claim(outbox)
    assert await outbox.settle(Settlement(batch.claim)) == 0
    assert (await outbox.stats()).delivering == 1


async def test_a_lease_that_ends_makes_its_rows_due_and_the_old_claim_void(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    late = await claim(outbox, ask(lease_seconds=0.1))
    batch = await claim(outbox)
    assert ids(batch) == [sent.id]
    [entry] = batch.entries
    assert (entry.sends, entry.attempts) == (1, 0)
    assert entry.first_sent_at_ms is not None
    assert await deliver(outbox, late) == 1
    row = await outbox.find(sent.id)
    assert row is not None
    assert row.state is State.DELIVERING
    assert await deliver(outbox, batch) == 0


async def test_only_the_rows_of_the_ended_lease_come_back(outbox: Outbox) -> None:
    events = await append_all(outbox, 4)
    await claim(outbox, ask(2, lease_seconds=0.1))
    await claim(outbox, ask(2, lease_seconds=60))
    assert ids(await claim(outbox)) == [each.id for each in events[:2]]
    assert await claims_nothing(outbox)


async def test_a_row_partly_settled_comes_back_alone_when_the_lease_ends(outbox: Outbox) -> None:
    events = await append_all(outbox, 3)
    batch = await claim(outbox, ask(lease_seconds=0.2))
    one, _, three = (entry.seq for entry in batch.entries)
    await outbox.settle(Settlement(batch.claim, delivered=[one, three]))
    assert ids(await claim(outbox)) == [events[1].id]


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


async def test_settled_rows_come_back_in_their_order_with_fresh_ones(outbox: Outbox) -> None:
    events = await append_all(outbox, 4)
    batch = await claim(outbox, ask(2))
    agains = [Again(entry.seq, 0, attempts=0, alone=False) for entry in batch.entries]
    await outbox.settle(Settlement(batch.claim, again=agains))
    assert ids(await claim(outbox)) == [each.id for each in events]


async def test_many_batches_drain_without_a_row_left_or_doubled(outbox: Outbox) -> None:
    events = [event(f"u-{n % 5}") for n in range(400)]
    await asyncio.gather(*(outbox.append(each) for each in events))
    got: list[str] = []

    async def send(batch: Batch) -> None:
        got.extend(ids(batch))
        await deliver(outbox, batch)

    async def work() -> None:
        while len(got) < 400:
            await send(await outbox.claim(ask(37)))

    workers = [asyncio.create_task(work()) for _ in range(3)]
    try:
        await eventually(outbox.stats, lambda stats: stats.delivered == 400)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    assert sorted(got) == sorted(each.id for each in events)


@pytest.mark.parametrize("count", [1, 3])
async def test_one_row_at_a_time_is_claimed_in_order(outbox: Outbox, count: int) -> None:
    events = await append_all(outbox, count)
    assert [ids(await claim(outbox, ask(1))) for _ in range(count)] == [[e.id] for e in events]
