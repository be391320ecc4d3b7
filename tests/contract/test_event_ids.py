"""One owner's event ids are its own: decided where the event is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from service.outbox.event import Event, Meta
from service.outbox.event_ids import USED_MS
from service.outbox.model import Filter
from service.outbox.row_lookup import RowLookup
from tests.support.storage import Outbox, Storage, claim, event

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
