"""Suspects: a claim takes them first, last or not at all, and always alone."""

from __future__ import annotations

from service.outbox.outbox import Again, Settlement, Suspects
from tests.contract.storage import Outbox, append_all, ask, claim, claims_nothing, event, ids


async def suspect(outbox: Outbox, delay_seconds: float = 0.0) -> str:
    """Append an event and settle it so that it must be sent alone; returns its id."""
    sent = event()
    await outbox.append(sent)
    batch = await claim(outbox)
    assert ids(batch) == [sent.id]
    again = Again(batch.entries[0].seq, delay_seconds, attempts=1, alone=True)
    await outbox.settle(Settlement(batch.claim, again=[again]))
    return sent.id


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
