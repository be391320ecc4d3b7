"""Claims that wait: what wakes them, what does not, and what a cancelled one leaves."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from service.outbox.event import Meta
from service.outbox.model import Named, Retry, Settlement, State
from tests.support.storage import (
    Outbox,
    append_all,
    ask,
    claim,
    claims_nothing,
    event,
    eventually,
    ids,
)

pytestmark = pytest.mark.in_memory_too


async def test_a_waiting_claim_wakes_when_an_event_is_appended(outbox: Outbox) -> None:
    waiting = asyncio.create_task(claim(outbox))
    assert await claims_nothing(outbox)
    [sent] = await append_all(outbox, 1)
    assert ids(await waiting) == [sent.id]


async def test_a_waiting_claim_wakes_when_a_delay_is_over(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    batch = await claim(outbox)
    retry = Retry(batch.entries[0].seq, 2.0, attempts=0, isolated=False)
    await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
    row = await outbox.intake.find(sent.id)
    assert row is not None
    assert row.state is State.PENDING
    assert row.due_in_seconds is not None
    assert 0 < row.due_in_seconds <= 2.0
    assert ids(await claim(outbox)) == [sent.id]


async def test_a_delayed_row_is_not_claimed_before_its_time(outbox: Outbox) -> None:
    await append_all(outbox, 2)
    batch = await claim(outbox)
    one, two = (entry.seq for entry in batch.entries)
    agains = [Retry(one, 60, attempts=0, isolated=False), Retry(two, 60, attempts=1, isolated=True)]
    await outbox.queue.settle(Settlement(batch.claim, retry=agains))
    [fresh] = await append_all(outbox, 1)
    assert ids(await claim(outbox)) == [fresh.id]
    assert await claims_nothing(outbox)


async def test_an_event_that_is_held_is_claimed_when_its_time_comes(outbox: Outbox) -> None:
    held = msgspec.structs.replace(event(), meta=Meta(due_at_ms=int(time.time() * 1000) + 2_000))
    await outbox.intake.append(held)
    fresh = await append_all(outbox, 1)
    assert ids(await claim(outbox)) == [fresh[0].id]
    assert ids(await claim(outbox)) == [held.id]
    assert time.time() * 1000 >= held.meta.due_at_ms


async def test_an_event_that_is_held_is_pending_and_can_be_taken_back(outbox: Outbox) -> None:
    held = msgspec.structs.replace(event(), meta=Meta(due_at_ms=int(time.time() * 1000) + 60_000))
    await outbox.intake.append(held)
    row = await outbox.intake.find(held.id)
    assert row is not None
    assert row.state is State.PENDING
    assert row.due_in_seconds is not None
    assert 0 < row.due_in_seconds <= 60
    assert await outbox.repairs.discard(Named((held.id,), never_sent=True), actor="ada") == [
        held.id
    ]


async def test_waiting_claims_each_get_rows(outbox: Outbox) -> None:
    waiting = [asyncio.create_task(claim(outbox, ask(1))) for _ in range(4)]
    events = await append_all(outbox, 4)
    batches = await asyncio.gather(*waiting)
    assert sorted(ids(batch)[0] for batch in batches) == sorted(each.id for each in events)


async def test_a_cancelled_claim_leaves_nothing_claimed(outbox: Outbox) -> None:
    events = await append_all(outbox, 5)
    for _ in range(10):
        waiting = asyncio.create_task(outbox.queue.claim(ask()))
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
    waiting = asyncio.create_task(outbox.queue.claim(ask()))
    assert await claims_nothing(outbox)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    [sent] = await append_all(outbox, 1)
    assert ids(await claim(outbox)) == [sent.id]


async def test_an_event_whose_delay_is_over_waits_for_no_later_backlog(outbox: Outbox) -> None:
    held = msgspec.structs.replace(event(), meta=Meta(due_at_ms=int(time.time() * 1000) + 300))
    await outbox.intake.append(held)
    await append_all(outbox, 40)
    await eventually(lambda: time.time() * 1000 > held.meta.due_at_ms)
    assert held.id in ids(await claim(outbox, ask(10)))
