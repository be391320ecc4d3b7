"""Ids that senders chose: their owners, their environments, and how rows are found by them."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest

from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.outbox.event_ids import USED_MS
from inngest_outbox.outbox.inngest_id import WantedEvent
from inngest_outbox.outbox.model import Filter, Settlement, State
from inngest_outbox.outbox.row_lookup import RowLookup
from tests.support.storage import Outbox, Storage, claim, deliver, event

SHOP, CRON = "key shop", "key cron"


def chosen(wire_id: str, environment: str | None = None, owner: str = "u-1") -> Event:
    return msgspec.structs.replace(event(owner), meta=Meta(wire_id, environment))


@pytest.fixture
def lookup(outbox: Outbox) -> RowLookup:
    return RowLookup(outbox.intake, outbox.inspector)


async def sent_as(outbox: Outbox, *calls: list[Event]) -> list[str | None]:
    """The ids on the wire of events that are appended call by call."""
    for events in calls:
        await outbox.intake.append_all(events, [None] * len(events))
    return [entry.as_sent.event_id for entry in (await claim(outbox)).entries]


async def test_an_id_that_another_owner_used_is_made_the_event_s_own(outbox: Outbox) -> None:
    """Even where a third owner has chosen just that one."""
    mine, free = chosen("a", owner=CRON), chosen("b", owner=CRON)
    assert await sent_as(outbox, [chosen("a", owner=SHOP)], [mine], [free]) == ["a", "cron/a", "b"]
    mine, alike = chosen("c", owner=CRON), chosen("cron/c", owner="key x")
    ids = await sent_as(outbox, [chosen("c", owner=SHOP)], [alike], [mine])
    assert ids == ["c", "cron/c", "cron/cron/c"]


async def test_an_id_is_left_as_it_is_for_its_owner_another_environment_and_after_24_hours(
    outbox: Outbox,
) -> None:
    mine, branch = chosen("a", owner=SHOP), chosen("a", "branch", CRON)
    assert await sent_as(outbox, [mine, chosen("a", owner=SHOP)], [branch]) == ["a", "a", "a"]
    old = chosen("b", owner=SHOP)
    old = msgspec.structs.replace(old, accepted_at_ms=old.accepted_at_ms - USED_MS - 60_000)
    assert await sent_as(outbox, [old], [chosen("b", owner=CRON)]) == ["b", "b"]


async def test_two_processes_at_one_instant_let_one_owner_keep_an_id(storage: Storage) -> None:
    if not storage.shared:
        pytest.skip("one process writes here")
    wanted = [str(number) for number in range(30)]
    async with storage.open() as one, storage.open() as other:
        calls = [
            outbox.intake.append(chosen(wire_id, owner=owner))
            for wire_id in wanted
            for owner, outbox in ((SHOP, one), (CRON, other))
        ]
        await asyncio.gather(*calls)
        sent = [str(row.meta.wire_id) for row in await one.inspector.rows(Filter())]
    own = [one for one in sent if "/" in one]
    assert sorted(sent) == sorted([*wanted, *own])
    assert len(own) == len(wanted)


@pytest.mark.parametrize("wire_id", ["a", "ü" * 3000], ids=["short", "long"])
async def test_an_event_is_found_by_the_id_that_its_sender_gave_it(
    outbox: Outbox, lookup: RowLookup, wire_id: str
) -> None:
    mine, alike = chosen(wire_id, owner=CRON), chosen(f"{wire_id}!", owner=CRON)
    sent = await sent_as(outbox, [chosen(wire_id, owner=SHOP)], [mine], [alike])
    assert sent == [wire_id, f"cron/{wire_id}", f"{wire_id}!"]
    found = [await lookup.find(one, CRON) for one in sent]
    assert [row and row.id for row in found] == [mine.id, mine.id, alike.id]


@pytest.mark.in_memory_too
async def test_the_id_and_the_environment_of_an_event_stay_with_its_row_in_every_state(
    outbox: Outbox,
) -> None:
    """With the ULID that Inngest gave instead of it, too."""
    sent, plain, done = chosen("order-1", "branch"), event(), chosen("ö-🦊", "branch")
    wanted = [
        WantedEvent("order-1", "branch"),
        WantedEvent(plain.id),
        WantedEvent("ö-🦊", "branch"),
    ]
    await outbox.intake.append_all([sent, plain, done], (None, None, None))
    batch = await claim(outbox)
    assert [entry.as_sent for entry in batch.entries] == wanted
    assert batch.entries[1].meta.wire_id is None
    first, second, third = (entry.seq for entry in batch.entries)
    settlement = Settlement(
        batch.claim, sent=[first], delivered=[second, third], answered=[(third, "01J")]
    )
    assert await outbox.queue.settle(settlement) == 0
    assert [entry.as_sent for entry in await outbox.confirmations.sent(10)] == wanted[:1]
    rows = (await outbox.inspector.rows(Filter()))[::-1]
    assert [row.as_sent for row in rows] == wanted
    assert rows == [await outbox.intake.find(one.id) for one in (sent, plain, done)]
    assert [rows[0].meta, rows[2].meta] == [
        Meta("order-1", "branch"),
        Meta("ö-🦊", "branch", answered_id="01J"),
    ]


@pytest.mark.in_memory_too
async def test_two_owners_may_choose_the_same_id(outbox: Outbox) -> None:
    mine, theirs = chosen("order-1", owner="u-1"), chosen("order-1", owner="u-2")
    receipts = [await outbox.intake.append(one) for one in (mine, theirs)]
    assert [receipt.event_id for receipt in receipts] == [mine.id, theirs.id]
    assert receipts[0].inngest_id != receipts[1].inngest_id
    await deliver(outbox, await claim(outbox))
    assert len(await outbox.inspector.rows(Filter(state=State.DELIVERED))) == 2


LONG, ULID = "i" * 256, "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.mark.parametrize("name", ["same", ULID])
async def test_each_id_of_a_row_finds_it_for_its_sender_alone(
    outbox: Outbox, lookup: RowLookup, name: str
) -> None:
    """The newer one of two that a sender named alike."""
    mine, others, newer = chosen(name), chosen(name, owner="u-2"), chosen(name)
    for one in (event(), mine, others, event()):
        await outbox.intake.append(one)
    row = await outbox.intake.find(mine.id)
    assert row.inngest_id
    for one in (mine.id, row.inngest_id, name):
        assert await lookup.find(one, mine.owner) == row
    await outbox.intake.append(newer)
    found = [await lookup.find(name, owner) for owner in (mine.owner, others.owner, "u-3")]
    assert [one and one.id for one in found] == [newer.id, others.id, None]


async def test_a_row_is_found_by_the_ulid_that_it_brought_from_another_outbox(
    outbox: Outbox, lookup: RowLookup
) -> None:
    moved = msgspec.structs.replace(event(), meta=Meta(moved_id=ULID))
    for one in (event(), moved):
        await outbox.intake.append(one)
    row = await lookup.find(ULID, "u-2")
    assert (row.id, row.inngest_id) == (moved.id, ULID)


async def test_an_unknown_id_finds_none(outbox: Outbox, lookup: RowLookup) -> None:
    await outbox.intake.append(chosen(LONG))
    for unknown in ("", "x", "\x00", LONG, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", f"{'0' * 25}1"):
        assert await lookup.find(unknown, "dev u-1") is None


EVENTS = 40

# A store may begin its commit with the first call alone, and end it before the last ones.
FEW_REQUESTS = 12


async def test_events_whose_environments_alternate_are_sent_in_few_requests(
    outbox: Outbox,
) -> None:
    events = [
        msgspec.structs.replace(event(), meta=Meta(environment=environment))
        for _, environment in zip(range(EVENTS), itertools.cycle(["branch", None, "other"]))
    ]
    receipts = await asyncio.gather(*(outbox.intake.append(one) for one in events))
    assert [receipt.event_id for receipt in receipts] == [one.id for one in events]
    batch = await claim(outbox)
    numbered = {receipt.event_id: receipt.seq for receipt in receipts}
    assert [numbered[entry.event_id] for entry in batch.entries] == sorted(numbered.values())
    requests = itertools.groupby(batch.entries, key=lambda entry: entry.meta.environment)
    assert len(list(requests)) <= FEW_REQUESTS
