"""A user's own rows: pages of them, and taking back what was never sent."""

from __future__ import annotations

from service.outbox.model import Filter, Named, Retry, Settlement, State
from tests.support.named_rows import named
from tests.support.rows import one_of_each
from tests.support.storage import Outbox, claim, event


async def test_pages_of_rows_have_every_row_once_and_the_newest_first(outbox: Outbox) -> None:
    stored = [(await outbox.intake.append(event())).event_id for _ in range(5)]
    seen: list[str] = []
    before = None
    while page := await outbox.inspector.rows(Filter(before_seq=before, limit=2)):
        seen += [row.id for row in page]
        before = page[-1].seq
    assert seen == stored[::-1]


async def test_rows_since_a_time_are_those_accepted_then_or_later(outbox: Outbox) -> None:
    [row] = await outbox.inspector.rows(
        Filter(ids=((await outbox.intake.append(event())).event_id,))
    )
    assert await outbox.inspector.rows(Filter(since_ms=row.accepted_at_ms)) == [row]
    assert await outbox.inspector.rows(Filter(since_ms=row.accepted_at_ms + 1)) == []


async def test_only_a_row_that_was_never_sent_is_discarded_as_such(outbox: Outbox) -> None:
    await outbox.intake.append(event("u-5"))
    batch = await claim(outbox)
    retry = Retry(batch.entries[0].seq, delay_seconds=60, attempts=1, isolated=False)
    await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
    places = await one_of_each(outbox)
    every = await named(outbox.inspector)
    gone = await outbox.repairs.discard(Named(every.ids, never_sent=True), actor="ada")
    assert gone == [places[State.PENDING]]


async def test_one_users_row_is_not_discarded_for_another(outbox: Outbox) -> None:
    receipt = await outbox.intake.append(event("u-1"))
    others = Named((receipt.event_id,), owner="u-2", never_sent=True)
    assert await outbox.repairs.discard(others, actor="u-2") == []
    assert await outbox.intake.find(receipt.event_id) is not None
