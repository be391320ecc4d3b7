"""The intake of an SQLite outbox: what has room is submitted, and a repeat needs none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.errors import (
    IdempotencyKeyReusedError,
    OutboxUnavailableError,
    TooManyPendingError,
)
from service.outbox.keys import IdempotencyKey
from service.outbox.limits import Limits
from service.outbox.receipt import Receipt
from service.outbox.sqlite.appends import Append
from service.outbox.sqlite.intake import SqliteIntake
from service.outbox.sqlite.key_uses import EarlierUses
from service.outbox.sqlite.memory import Memory
from tests.support.sqlite_room import IDS, Inline, Room
from tests.support.storage import event

SIZE = 200


class Writer:
    """Commits at once what is submitted."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.submitted: list[Append] = []

    def submit(self, kind: Any, item: Append) -> asyncio.Future[Any]:
        self.submitted.append(item)
        future = asyncio.get_running_loop().create_future()
        [result] = self._room.commit(kind, item)
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
        return future


class Health:
    error: Exception | None = None

    def refuse_if_failing(self) -> None:
        if self.error:
            raise self.error


class Door:
    """An intake on a room that has place for so many rows and bytes of one owner."""

    def __init__(self, rows: int = 100, size: int | None = None) -> None:
        self.room, self.health = Room(), Health()
        self.room.counts._limits = Limits(100, rows, None, size)
        self.writer, inline = Writer(self.room), Inline(self.room)
        uses = EarlierUses(inline, Memory(ids=IDS), self.room.clock)  # type: ignore[arg-type]
        self.intake = SqliteIntake(
            self.writer,  # type: ignore[arg-type]
            self.room.appends,
            self.room.counts,
            uses,
            inline,  # type: ignore[arg-type]
            self.health,  # type: ignore[arg-type]
        )

    @property
    def held(self) -> tuple[int, int]:
        return self.room.counts.total, self.room.counts.total_bytes


def key(name: str = "k", digest: bytes = b"1", lifetime: float | None = None) -> IdempotencyKey:
    return IdempotencyKey(name, digest * 32, lifetime)


def told(receipts: Any) -> list[tuple[int, bool]]:
    return [(receipt.seq, receipt.replayed) for receipt in receipts]


async def test_one_event_is_submitted_with_its_key_and_its_trace() -> None:
    door = Door()
    plain, keyed = event(), event()
    receipt = await door.intake.append(plain)
    assert (receipt.event_id, receipt.seq) == (plain.id, 1)
    await door.intake.append(keyed, key=key())
    assert door.writer.submitted == [
        Append((plain,), (), express=False),
        Append((keyed,), (key(),), express=False),
    ]
    assert door.held == (2, 2 * SIZE)
    row = await door.intake.find(plain.id)
    assert row
    assert row.id == plain.id
    assert await door.intake.find("nobody") is None


async def test_a_call_is_submitted_in_one_with_its_keys_and_its_trace() -> None:
    door = Door()
    events = [event(), event()]
    assert told(await door.intake.append_all(events, [None, None])) == [
        (1, False),
        (2, False),
    ]
    await door.intake.append_all([event("u-2")], [key()])
    assert door.writer.submitted[0] == Append(events, (), express=False)
    assert door.writer.submitted[1].keys == [key()]


async def test_a_call_without_events_or_of_two_owners_submits_nothing() -> None:
    door = Door()
    assert await door.intake.append_all([], []) == ()
    with pytest.raises(ValueError, match="one owner"):
        await door.intake.append_all([event("a"), event("b")], [None, None])
    with pytest.raises(ValueError, match="a key or None"):
        await door.intake.append_all([event()], [])
    assert door.writer.submitted == []
    assert door.held == (0, 0)


@pytest.mark.parametrize(("rows", "size"), [(2, None), (100, 2 * SIZE)])
async def test_what_has_no_room_is_refused_and_what_is_stored_is_answered_all_the_same(
    rows: int, size: int | None
) -> None:
    door = Door(rows, size)
    intake = door.intake
    first, *_ = await intake.append_all([event(), event()], [key(), None])
    with pytest.raises(TooManyPendingError):
        await intake.append(event())
    with pytest.raises(TooManyPendingError):
        await intake.append(event(), key=key("new"))
    again = await intake.append(event(), key=key())
    assert (again.event_id, again.replayed) == (first.event_id, True)
    with pytest.raises(IdempotencyKeyReusedError):
        await intake.append(event(), key=key(digest=b"2"))
    with pytest.raises(TooManyPendingError):
        await intake.append_all([event(), event()], [key(), key("new")])
    with pytest.raises(TooManyPendingError):
        await intake.append_all([event(), event()], [key(), None])
    assert len(door.writer.submitted) == 1
    assert door.held == (2, 2 * SIZE)


@pytest.mark.parametrize(("rows", "size"), [(3, None), (100, 3 * SIZE)])
async def test_only_the_new_events_of_a_call_need_room(rows: int, size: int | None) -> None:
    door = Door(rows, size)
    await door.intake.append_all([event(), event()], [key("a"), key("b")])
    repeated = [key("a"), key("b"), key("c")]
    receipts = await door.intake.append_all([event(), event(), event()], repeated)
    assert told(receipts) == [(1, True), (2, True), (3, False)]
    assert door.held == (3, 3 * SIZE)


async def test_a_repeat_whose_lifetime_is_over_needs_room() -> None:
    door = Door(rows=1)
    old = event()
    door.room.clock.ms = old.accepted_at_ms
    await door.intake.append(old, key=key(lifetime=5.0))
    assert (await door.intake.append(event(), key=key(lifetime=5.0))).replayed
    door.room.clock.ms += 5001
    with pytest.raises(TooManyPendingError):
        await door.intake.append(event(), key=key(lifetime=5.0))


async def test_while_the_file_can_not_be_written_only_repeats_are_answered() -> None:
    door = Door()
    first = await door.intake.append(event(), key=key())
    door.health.error = OutboxUnavailableError("The disk is full.")
    for given in (None, key("new")):
        with pytest.raises(OutboxUnavailableError, match="full"):
            await door.intake.append(event(), key=given)
    again = await door.intake.append(event(), key=key())
    assert isinstance(again, Receipt)
    assert again.event_id == first.event_id
    assert again.inngest_id == first.inngest_id
    assert door.held == (1, SIZE)


async def test_an_event_of_an_owner_with_few_rows_is_express_beside_a_flood() -> None:
    door = Door(rows=5000)
    door.room.counts._heavy_rows = 3
    await door.intake.append_all([event("flood") for _ in range(4)], [None] * 4)
    await door.intake.append(event("ada"))
    assert [item.express for item in door.writer.submitted] == [False, True]
