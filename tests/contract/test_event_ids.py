"""One owner's event ids are its own: decided where the event is stored."""

from __future__ import annotations

import msgspec

from service.outbox.event import Event, Meta
from service.outbox.event_ids import USED_MS
from service.outbox.row_lookup import RowLookup
from tests.support.storage import Outbox, claim, event

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


async def test_an_event_is_found_by_the_id_that_its_sender_gave_it(outbox: Outbox) -> None:
    mine = named(CRON, "a")
    await sent_as(outbox, [named(SHOP, "a")], [mine])
    found = await RowLookup(outbox.intake, outbox.inspector).find("a", CRON)
    assert found is not None
    assert (found.id, found.meta.wire_id) == (mine.id, "cron/a")
