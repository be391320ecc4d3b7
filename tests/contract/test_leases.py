"""Leases: while one runs its rows are taken, and when it ends they are due again."""

from __future__ import annotations

import pytest

from service.outbox.model import Settlement, State
from tests.support.storage import (
    Outbox,
    Storage,
    append_all,
    ask,
    claim,
    claims_nothing,
    deliver,
    ids,
)

pytestmark = pytest.mark.in_memory_too


async def test_a_claimed_row_is_delivering_under_its_lease(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    await claim(outbox, ask(lease_seconds=30))
    row = await outbox.intake.find(sent.id)
    assert row is not None
    assert row.state is State.DELIVERING
    assert row.lease_in_seconds is not None
    assert 20 < row.lease_in_seconds <= 30
    assert row.first_sent_at_ms is not None
    assert row.due_in_seconds is None


async def test_a_lease_that_ends_makes_its_rows_due_and_the_old_claim_void(outbox: Outbox) -> None:
    [sent] = await append_all(outbox, 1)
    late = await claim(outbox, ask(lease_seconds=0.1))
    batch = await claim(outbox)
    assert ids(batch) == [sent.id]
    [entry] = batch.entries
    assert (entry.sends, entry.attempts) == (1, 0)
    assert entry.first_sent_at_ms is not None
    assert await deliver(outbox, late) == 1
    row = await outbox.intake.find(sent.id)
    assert row is not None
    assert row.state is State.DELIVERING
    assert await deliver(outbox, batch) == 0


async def test_only_the_rows_of_the_ended_lease_come_back(outbox: Outbox) -> None:
    events = await append_all(outbox, 4)
    await claim(outbox, ask(2, lease_seconds=60))
    await claim(outbox, ask(2, lease_seconds=0.1))
    assert ids(await claim(outbox)) == [each.id for each in events[2:]]
    assert await claims_nothing(outbox)


async def test_a_row_partly_settled_comes_back_alone_when_the_lease_ends(outbox: Outbox) -> None:
    events = await append_all(outbox, 3)
    batch = await claim(outbox, ask(lease_seconds=2.0))
    one, _, three = (entry.seq for entry in batch.entries)
    await outbox.queue.settle(Settlement(batch.claim, delivered=[one, three]))
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
