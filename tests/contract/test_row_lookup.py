"""A row is found by the service's id, by Inngest's, and by the one that its sender chose."""

from __future__ import annotations

import msgspec
import pytest

from service.outbox.event import Event, Meta
from service.outbox.row_lookup import RowLookup
from tests.support.storage import Outbox, event

LONG = "i" * 256


def chosen(client_id: str, user_id: str = "u-1") -> Event:
    return msgspec.structs.replace(event(user_id), meta=Meta(client_id))


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
    mine, others = chosen("same", "u-1"), chosen("same", "u-2")
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
