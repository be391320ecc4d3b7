"""Isolated rows: a claim takes them first, last or not at all, and always alone."""

from __future__ import annotations

import pytest

from service.outbox.model import Isolated, Retry, Settlement
from tests.support.storage import Outbox, append_all, ask, claim, claims_nothing, event, ids

pytestmark = pytest.mark.in_memory_too


async def isolate(outbox: Outbox, delay_seconds: float = 0.0) -> str:
    """Append an event and settle it so that it must be sent alone; returns its id."""
    sent = event()
    await outbox.intake.append(sent)
    batch = await claim(outbox)
    assert ids(batch) == [sent.id]
    retry = Retry(batch.entries[0].seq, delay_seconds, attempts=1, isolated=True)
    await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
    return sent.id


async def test_an_isolated_row_comes_first_and_alone(outbox: Outbox) -> None:
    isolated = await isolate(outbox)
    others = [each.id for each in await append_all(outbox, 3)]
    batch = await claim(outbox, ask(isolated=Isolated.FIRST))
    assert ids(batch) == [isolated]
    assert batch.entries[0].isolated
    assert batch.entries[0].attempts == 1
    assert ids(await claim(outbox, ask(isolated=Isolated.FIRST))) == others


async def test_an_isolated_row_comes_last_and_alone(outbox: Outbox) -> None:
    isolated = [await isolate(outbox)]
    others = [each.id for each in await append_all(outbox, 3)]
    assert ids(await claim(outbox, ask(isolated=Isolated.LAST))) == others
    assert ids(await claim(outbox, ask(isolated=Isolated.LAST))) == isolated


async def test_no_isolated_row_comes_when_none_is_wanted(outbox: Outbox) -> None:
    isolated = await isolate(outbox)
    [other] = await append_all(outbox, 1)
    assert ids(await claim(outbox, ask(isolated=Isolated.NONE))) == [other.id]
    assert await claims_nothing(outbox, ask(isolated=Isolated.NONE))
    assert ids(await claim(outbox)) == [isolated]


async def test_a_delayed_isolated_row_waits_for_its_time(outbox: Outbox) -> None:
    isolated = await isolate(outbox, delay_seconds=2.0)
    others = [each.id for each in await append_all(outbox, 2)]
    assert ids(await claim(outbox)) == others
    assert ids(await claim(outbox)) == [isolated]


async def test_isolated_rows_come_one_by_one(outbox: Outbox) -> None:
    events = await append_all(outbox, 2)
    batch = await claim(outbox)
    again = [Retry(entry.seq, 0, attempts=1, isolated=True) for entry in batch.entries]
    await outbox.queue.settle(Settlement(batch.claim, retry=again))
    batches = [ids(await claim(outbox)) for _ in events]
    assert sorted(batches) == sorted([each.id] for each in events)
