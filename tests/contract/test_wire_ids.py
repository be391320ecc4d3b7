"""Events with an id that their client chose, and with an environment of their own."""

from __future__ import annotations

import msgspec
import pytest

from service.outbox.event import Event, Meta
from service.outbox.inngest_id import WantedEvent
from service.outbox.model import Batch, Filter, Settlement
from tests.support.storage import Outbox, claim, deliver, event

pytestmark = pytest.mark.in_memory_too


def chosen(wire_id: str, environment: str | None = None, owner: str = "u-1") -> Event:
    return msgspec.structs.replace(event(owner), meta=Meta(wire_id, environment))


def as_sent(batch: Batch) -> list[WantedEvent]:
    return [entry.as_sent for entry in batch.entries]


async def test_a_claim_has_the_ids_and_environments_of_its_events(outbox: Outbox) -> None:
    plain = event()
    await outbox.intake.append_all(
        [chosen("order-1", "branch"), plain, chosen("ö-🦊")], (None, None, None)
    )
    batch = await claim(outbox)
    assert as_sent(batch) == [
        WantedEvent("order-1", "branch"),
        WantedEvent(plain.id),
        WantedEvent("ö-🦊"),
    ]
    assert batch.entries[1].meta.wire_id is None


async def test_they_stay_with_the_row_in_every_state(outbox: Outbox) -> None:
    sent, delivered = chosen("a", "branch"), chosen("b")
    await outbox.intake.append_all([sent, delivered], (None, None))
    batch = await claim(outbox)
    first, second = (entry.seq for entry in batch.entries)
    await outbox.queue.settle(Settlement(batch.claim, sent=[first], delivered=[second]))
    [entry] = await outbox.confirmations.sent(10)
    [done] = await outbox.confirmations.delivered(10)
    rows = await outbox.inspector.rows(Filter())
    found = await outbox.intake.find(sent.id)
    assert (entry.as_sent, done.as_sent) == (WantedEvent("a", "branch"), WantedEvent("b"))
    assert [row.as_sent for row in rows] == [done.as_sent, entry.as_sent]
    assert found is not None
    assert (found.meta.wire_id, found.meta.environment) == ("a", "branch")


async def test_two_owners_may_choose_the_same_id(outbox: Outbox) -> None:
    mine, theirs = chosen("order-1", owner="u-1"), chosen("order-1", owner="u-2")
    receipts = [await outbox.intake.append(one) for one in (mine, theirs)]
    assert [receipt.event_id for receipt in receipts] == [mine.id, theirs.id]
    assert receipts[0].inngest_id != receipts[1].inngest_id
    await deliver(outbox, await claim(outbox))
    assert len(await outbox.confirmations.delivered(10)) == 2


async def test_a_ulid_that_inngest_gave_instead_stays_with_the_delivered_row(
    outbox: Outbox,
) -> None:
    mine = chosen("a", "branch")
    await outbox.intake.append_all([mine, chosen("b")], (None, None))
    batch = await claim(outbox)
    first, second = (entry.seq for entry in batch.entries)
    given = Settlement(batch.claim, delivered=[first, second], answered=[(first, "01J")])
    assert await outbox.queue.settle(given) == 0
    found = await outbox.intake.find(mine.id)
    assert found is not None
    assert found.meta == Meta("a", "branch", answered_id="01J")
