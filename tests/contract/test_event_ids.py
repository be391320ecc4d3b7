"""Ids that senders chose: their owners, their environments, and how rows are found by them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import msgspec
import pytest

from service.outbox.event import Event, Meta
from service.outbox.event_ids import USED_MS
from service.outbox.inngest_id import WantedEvent
from service.outbox.model import Batch, Filter, Settlement
from service.outbox.row_lookup import RowLookup
from tests.support.storage import Outbox, Storage, claim, deliver, event

SHOP, CRON = "key shop", "key cron"


def named(owner: str, wire_id: str, environment: str | None = None) -> Event:
    return msgspec.structs.replace(event(owner), meta=Meta(wire_id, environment))


async def sent_as(outbox: Outbox, *calls: list[Event]) -> list[str | None]:
    """The ids on the wire of events that are appended call by call."""
    for events in calls:
        await outbox.intake.append_all(events, [None] * len(events))
    return [entry.as_sent.event_id for entry in (await claim(outbox)).entries]


async def test_an_id_that_another_owner_used_is_made_the_event_s_own(outbox: Outbox) -> None:
    ids = await sent_as(outbox, [named(SHOP, "a")], [named(CRON, "a")], [named(CRON, "b")])
    assert ids == ["a", "cron/a", "b"]


async def test_the_owner_itself_and_another_environment_keep_the_id(outbox: Outbox) -> None:
    branch = named(CRON, "a", "branch")
    ids = await sent_as(outbox, [named(SHOP, "a"), named(SHOP, "a")], [branch])
    assert sorted(map(str, ids)) == ["a", "a", "a"]


async def test_an_id_is_free_again_after_24_hours(outbox: Outbox) -> None:
    old = named(SHOP, "a")
    old = msgspec.structs.replace(old, accepted_at_ms=old.accepted_at_ms - USED_MS - 60_000)
    assert await sent_as(outbox, [old], [named(CRON, "a")]) == ["a", "a"]


async def test_an_id_that_looks_like_an_own_one_is_kept_apart_too(outbox: Outbox) -> None:
    calls = [named(SHOP, "a")], [named("key x", "cron/a")], [named(CRON, "a")]
    assert await sent_as(outbox, *calls) == ["a", "cron/a", "cron/cron/a"]


async def test_two_processes_at_one_instant_let_one_owner_keep_an_id(storage: Storage) -> None:
    if not storage.shared:
        pytest.skip("one process writes here")
    chosen = [str(number) for number in range(30)]
    async with storage.open() as one, storage.open() as other:
        calls = [
            outbox.intake.append(named(owner, wire_id))
            for wire_id in chosen
            for owner, outbox in ((SHOP, one), (CRON, other))
        ]
        await asyncio.gather(*calls)
        sent = [row.meta.wire_id for row in await one.inspector.rows(Filter())]
    assert sorted(sent) == sorted([*chosen, *sent_apart(sent)])
    assert len(sent_apart(sent)) == len(chosen)


def sent_apart(sent: Sequence[str | None]) -> list[str]:
    return [one for one in sent if one and "/" in one]


@pytest.mark.parametrize("wire_id", ["a", "ü" * 3000], ids=["short", "long"])
async def test_an_event_is_found_by_the_id_that_its_sender_gave_it(
    outbox: Outbox, wire_id: str
) -> None:
    mine, alike = named(CRON, wire_id), named(CRON, f"{wire_id}!")
    sent = await sent_as(outbox, [named(SHOP, wire_id)], [mine], [alike])
    assert sent == [wire_id, f"cron/{wire_id}", f"{wire_id}!"]
    lookup = RowLookup(outbox.intake, outbox.inspector)
    found = [await lookup.find(one, CRON) for one in sent]
    assert [row and row.id for row in found] == [mine.id, mine.id, alike.id]


def chosen(wire_id: str, environment: str | None = None, owner: str = "u-1") -> Event:
    return msgspec.structs.replace(event(owner), meta=Meta(wire_id, environment))


def as_sent(batch: Batch) -> list[WantedEvent]:
    return [entry.as_sent for entry in batch.entries]


@pytest.mark.in_memory_too
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


@pytest.mark.in_memory_too
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


@pytest.mark.in_memory_too
async def test_two_owners_may_choose_the_same_id(outbox: Outbox) -> None:
    mine, theirs = chosen("order-1", owner="u-1"), chosen("order-1", owner="u-2")
    receipts = [await outbox.intake.append(one) for one in (mine, theirs)]
    assert [receipt.event_id for receipt in receipts] == [mine.id, theirs.id]
    assert receipts[0].inngest_id != receipts[1].inngest_id
    await deliver(outbox, await claim(outbox))
    assert len(await outbox.confirmations.delivered(10)) == 2


@pytest.mark.in_memory_too
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


LONG = "i" * 256


@pytest.fixture
def lookup(outbox: Outbox) -> RowLookup:
    return RowLookup(outbox.intake, outbox.inspector)


async def test_each_id_of_a_row_finds_it(outbox: Outbox, lookup: RowLookup) -> None:
    stored = chosen("mine")
    await outbox.intake.append_all([event(), stored, event()], (None,) * 3)
    row = await outbox.intake.find(stored.id)
    assert row
    assert row.inngest_id
    for one in (stored.id, row.inngest_id, "mine"):
        assert await lookup.find(one, stored.owner) == row


async def test_an_id_that_a_sender_chose_finds_that_sender_s_row_only(
    outbox: Outbox, lookup: RowLookup
) -> None:
    mine, others = chosen("same", owner="u-1"), chosen("same", owner="u-2")
    for one in (mine, others):
        await outbox.intake.append(one)
    for one in (mine, others):
        row = await lookup.find("same", one.owner)
        assert row
        assert row.id == one.id
    assert await lookup.find("same", "dev u-3") is None


async def test_of_two_rows_that_a_sender_named_alike_the_newer_is_found(
    outbox: Outbox, lookup: RowLookup
) -> None:
    older, newer = chosen("same"), chosen("same")
    for one in (older, newer):
        await outbox.intake.append(one)
    row = await lookup.find("same", newer.owner)
    assert row
    assert row.id == newer.id


@pytest.mark.parametrize(
    "unknown", ["", "x", "\x00", LONG, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "00000000000000000000000001"]
)
async def test_an_unknown_id_finds_none(outbox: Outbox, lookup: RowLookup, unknown: str) -> None:
    await outbox.intake.append(chosen(LONG))
    assert await lookup.find(unknown, "dev u-1") is None


EVENTS = 40

# A store may begin its commit with the first call alone, and end it before the last ones.
FEW_REQUESTS = 12


def alternating(position: int) -> Event:
    return msgspec.structs.replace(
        event(), meta=Meta(environment=["branch", None, "other"][position % 3])
    )


async def test_events_whose_environments_alternate_are_sent_in_few_requests(
    outbox: Outbox,
) -> None:
    events = [alternating(position) for position in range(EVENTS)]
    receipts = await asyncio.gather(*(outbox.intake.append(one) for one in events))
    assert [receipt.event_id for receipt in receipts] == [one.id for one in events]
    batch = await claim(outbox)
    numbered = {receipt.event_id: receipt.seq for receipt in receipts}
    assert [numbered[entry.event_id] for entry in batch.entries] == sorted(numbered.values())
    requests = itertools.groupby(batch.entries, key=lambda entry: entry.meta.environment)
    assert len(list(requests)) <= FEW_REQUESTS
