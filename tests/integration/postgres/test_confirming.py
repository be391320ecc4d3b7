"""Sent rows on PostgreSQL: who asks about them, and how they become delivered or pending."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from service.errors import OutboxUnavailableError
from service.outbox.event import Meta
from service.outbox.postgres.confirmations import PostgresConfirmations
from tests.support.postgres_room import SIZE, START_MS, Room, RoomPool, after
from tests.support.storage import event


class Wakeup:
    def __init__(self) -> None:
        self.due = 0

    def rows_are_due(self) -> None:
        self.due += 1


@pytest.fixture
def wakeup() -> Wakeup:
    return Wakeup()


@pytest.fixture
def rows(pool: Any, wakeup: Any) -> PostgresConfirmations:
    return PostgresConfirmations(pool, wakeup)


PAST = {"first_sent_at_ms": 5, "attempts": 3, "sends": 4, "isolated": True}


def sent(room: Room, *seqs: int, at: float = 0.0) -> None:
    """Sent rows of an owner each, in this order."""
    for seq in seqs:
        one = event(f"u-{seq}")
        values = {"owner": one.owner, "user_id": one.owner, "name": "n", "payload": one.payload}
        moved = {"inngest_id": f"i-{seq}", "wire_id": f"w-{seq}", "environment": f"e-{seq}"}
        room.put("", seq=seq, event_id=f"e-{seq}", accepted_at_ms=seq, **values, **moved)
        room.put("sent", seq=seq, sent_at_ms=START_MS + round(at * 1000), **PAST)


def entry(seq: int, age: float) -> tuple[Any, ...]:
    return (seq, f"e-{seq}", seq, age, 4, Meta(f"w-{seq}", f"e-{seq}", moved_id=f"i-{seq}"))


async def test_sent_rows_come_in_their_order_with_their_age(
    room: Room, rows: PostgresConfirmations, pool: RoomPool
) -> None:
    sent(room, 4, 2, 3, 1)
    sent(room, 5, at=99)
    room.at(2.5)
    found = await rows.sent(2, 1)
    assert [msgspec.structs.astuple(one) for one in found] == [entry(2, 2.5), entry(3, 2.5)]
    assert [(one.seq, one.sent_seconds) for one in await rows.sent(9, 4)] == [(5, 0.0)]
    assert [one.seq for one in await rows.sent(9)] == [1, 2, 3, 4, 5]
    assert {tuple(how.items()) for _, _, how in pool.asked} == {(("often", True),)}


async def test_sent_rows_are_searched_from_their_mark(
    room: Room, rows: PostgresConfirmations
) -> None:
    sent(room, 1, at=9.999)
    sent(room, 2, at=10)
    sent(room, 3, at=11)
    room.mark(sent_from=START_MS + 10_000)
    assert [one.seq for one in await rows.sent(9)] == [2, 3]


async def test_delivered_rows_come_in_their_order_with_their_age(
    room: Room, rows: PostgresConfirmations, pool: RoomPool
) -> None:
    sent(room, 6, 4, 2, 3, 1, 5)
    assert await rows.confirm([6, 4, 2, 3, 1]) == 5
    room.run("UPDATE outbox_done SET dead = true WHERE seq = 3")
    room.at(2.5)
    found = await rows.delivered(2, 1)
    assert [msgspec.structs.astuple(one) for one in found] == [entry(2, 2.5), entry(4, 2.5)]
    assert [one.seq for one in await rows.delivered(9)] == [1, 2, 4, 6]
    assert [how for _, _, how in pool.asked[-2:]] == [{}, {}]


async def test_delivered_rows_of_the_last_seconds(room: Room, rows: PostgresConfirmations) -> None:
    sent(room, 1, 2, 3, 4)
    for seq, seconds in ((1, 8.4), (2, 8.5), (3, 8.501), (4, 99)):
        await rows.confirm([seq])
        at_ms = START_MS + round(seconds * 1000)
        room.run("UPDATE outbox_done SET settled_at_ms = %s WHERE seq = %s", [at_ms, seq])
    room.at(10)
    found = await rows.delivered(9, within_seconds=1.5)
    assert [(one.seq, one.sent_seconds) for one in found] == [(3, 1.499), (4, 0.0)]
    assert [one.seq for one in await rows.delivered(9, 3, within_seconds=1.5)] == [4]


async def test_a_confirmed_row_is_delivered_with_its_past(
    room: Room, rows: PostgresConfirmations
) -> None:
    sent(room, 1, 2, 3)
    room.at(7)
    assert await rows.confirm([1, 3, 99]) == 2
    done = {**PAST, "settled_at_ms": START_MS + 7000, "dead": False}
    assert room.rows("done") == {1: done, 3: done}
    assert set(room.rows("sent")) == {2}
    [changed] = room.table("changes")
    assert (changed["delivered"], changed["sent"], changed["owners"]) == (2, -2, [])
    assert await rows.confirm([1, 3]) == 0
    assert len(room.table("changes")) == 1


async def test_one_row_is_counted_as_well(room: Room, rows: PostgresConfirmations) -> None:
    sent(room, 1, 2)
    assert await rows.confirm([1]) == await rows.resend([2], "lost") == 1
    assert [row["sent"] for row in room.table("changes")] == [-1, -1]


async def test_a_row_that_inngest_lost_is_due_again_and_lost_no_attempt(
    room: Room, rows: PostgresConfirmations, wakeup: Wakeup
) -> None:
    sent(room, 1, 2, 3)
    room.run("UPDATE outbox SET owner = 'u-1' WHERE seq = 2")
    room.at(7)
    assert await rows.resend([1, 2, 99], "lost\0") == 2
    waits = {**PAST, "attempts": 2, "due_at": 7.0, "held": False, "payload_bytes": SIZE}
    assert room.rows("ready") == {1: waits, 2: waits}
    note = {"at_ms": START_MS + 7000, "note": "lost\ufffd"}
    assert room.rows("notes") == {1: note, 2: note}
    assert set(room.rows("sent")) == {3}
    [changed] = room.table("changes")
    assert (changed["owners"], changed["pending"], changed["sent"]) == (["u-1"], [2], -2)
    assert wakeup.due == 1
    assert await rows.resend([1, 2], "lost") == 0
    assert (len(room.table("changes")), wakeup.due) == (1, 1)


@pytest.mark.parametrize("lane", ["due_from", "isolated_from"])
async def test_a_row_is_sent_again_behind_the_marks(
    room: Room, rows: PostgresConfirmations, lane: str
) -> None:
    sent(room, 1)
    room.mark(**{lane: after(100)})
    await rows.resend([1], "lost")
    assert room.rows("ready")[1]["due_at"] == 100.0


async def test_sent_rows_are_counted(room: Room, rows: PostgresConfirmations) -> None:
    room.run("UPDATE outbox_meta SET delivered = 1, dead = 2, sent = 40, changes_folded = 0")
    room.put("changes", sent=5)
    assert await rows.count_sent() == 45


def until(room: Room) -> float:
    """The end of the turn that one has."""
    return float(room.table("asker")[0]["asks_until"])


async def test_one_process_asks_until_its_turn_is_over(pool: Any, room: Room) -> None:
    one, two = PostgresConfirmations(pool, pool), PostgresConfirmations(pool, pool)
    assert await one.may_ask()
    for seconds in (0, 6, 10):
        room.at(seconds)
        assert not await two.may_ask()
    room.at(10.001)
    assert await two.may_ask()
    assert not await one.may_ask()


async def test_a_turn_is_kept_in_its_second_half(pool: Any, room: Room) -> None:
    one = PostgresConfirmations(pool, pool)
    for seconds, end in ((0, 10.0), (4, 10.0), (5, 10.0), (5.5, 15.5), (15.5, 25.5), (99, 109.0)):
        room.at(seconds)
        assert await one.may_ask()
        assert until(room) == end


async def test_who_stops_asking_gives_its_turn_to_another(pool: Any) -> None:
    one, two = PostgresConfirmations(pool, pool), PostgresConfirmations(pool, pool)
    assert await one.may_ask()
    await two.stop_asking()
    assert not await two.may_ask()
    await one.stop_asking()
    assert await two.may_ask()


@pytest.mark.parametrize("error", [None, OutboxUnavailableError()])
async def test_who_asks_stops_at_its_end(
    pool: RoomPool, room: Room, error: Exception | None
) -> None:
    given: Any = pool
    async with PostgresConfirmations(given, given) as rows:
        assert await rows.may_ask()
        pool.error = error
    assert (until(room) < 0) is (error is None)


@pytest.mark.parametrize("stopped", [False, True])
async def test_who_does_not_ask_ends_without_a_statement(pool: RoomPool, *, stopped: bool) -> None:
    given: Any = pool
    async with PostgresConfirmations(given, given) as rows:
        if stopped:
            assert await rows.may_ask()
            await rows.stop_asking()
        before = len(pool.asked)
    assert len(pool.asked) == before


async def test_the_ids_in_inngest_follow_from_the_outbox(
    room: Room, rows: PostgresConfirmations
) -> None:
    room.run("UPDATE outbox_meta SET inngest_id_prefix = 'abcdef'")
    with pytest.raises(RuntimeError):
        _ = rows.inngest_ids
    async with rows as opened:
        assert opened is rows
        assert rows.inngest_ids.prefix == b"abcdef"
