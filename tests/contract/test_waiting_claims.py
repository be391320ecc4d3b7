"""Claims that wait: what wakes them, what does not, and what a cancelled one leaves."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.outbox.model import Named, Retry, Settlement, State
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


def due_in(seconds: float) -> Event:
    due_at_ms = int((time.time() + seconds) * 1000)
    return msgspec.structs.replace(event(), meta=Meta(due_at_ms=due_at_ms))


async def test_waiting_claims_wake_when_events_are_appended_and_each_gets_rows(
    outbox: Outbox,
) -> None:
    waiting = [asyncio.create_task(claim(outbox, ask(1))) for _ in range(4)]
    assert await claims_nothing(outbox)
    events = await append_all(outbox, 4)
    batches = await asyncio.gather(*waiting)
    assert sorted(ids(batch)[0] for batch in batches) == sorted(each.id for each in events)


async def test_a_waiting_claim_wakes_when_a_delay_is_over(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    batch = await claim(outbox)
    for isolated in (False, True):
        retry = Retry(batch.entries[0].seq, 0.3, attempts=0, isolated=isolated)
        await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
        batch = await claim(outbox)
        assert ids(batch) == [sent.id]
    held = due_in(0.3)
    await outbox.intake.append(held)
    assert ids(await claim(outbox)) == [held.id]
    assert time.time() * 1000 >= (held.meta.due_at_ms or 0)


async def test_a_delayed_row_is_not_claimed_before_its_time(outbox: Outbox) -> None:
    tried = await append_all(outbox, 2)
    batch = await claim(outbox)
    one, two = (entry.seq for entry in batch.entries)
    agains = [Retry(one, 60, attempts=0, isolated=False), Retry(two, 60, attempts=1, isolated=True)]
    await outbox.queue.settle(Settlement(batch.claim, retry=agains))
    held = due_in(60)
    await outbox.intake.append(held)
    [fresh] = await append_all(outbox, 1)
    assert ids(await claim(outbox)) == [fresh.id]
    assert await claims_nothing(outbox)
    for each in (*tried, held):
        row = await outbox.intake.find(each.id)
        assert row.state is State.PENDING
        assert 0 < row.due_in_seconds <= 60
    taken_back = Named((held.id,), never_sent=True)
    assert await outbox.repairs.discard(taken_back, actor="ada") == [held.id]


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
    held = due_in(0.3)
    await outbox.intake.append(held)
    await append_all(outbox, 40)
    await eventually(lambda: time.time() * 1000 > (held.meta.due_at_ms or 0))
    assert held.id in ids(await claim(outbox, ask(10)))
