"""What a process reads of the counts on PostgreSQL, and how a recount puts them right."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.fair_share import FairShare
from service.outbox.model import Dead
from service.outbox.postgres.counts import (
    READ_CHANGES,
    READ_FOLDED,
    READ_TOTALS,
    PostgresCounts,
    Snapshot,
)
from service.outbox.postgres.fold import FOLD
from service.outbox.postgres.recount import RECOUNT
from tests.support.postgres_room import Room, RoomPool, after
from tests.support.storage import event


@pytest.fixture
def counts(pool: Any) -> PostgresCounts:
    return PostgresCounts(pool, FairShare(heavy_rows=3))


def asked(pool: RoomPool) -> list[tuple[str, int | None]]:
    """The statements with the change after which they read; their time was that of the read."""
    assert {how["within_seconds"] for _, _, how in pool.asked} == {5.0}
    return [(statement, given and given["after"]) for statement, given, _ in pool.asked]


def change(room: Room, owner: str, pending: int, size: int, **values: Any) -> None:
    room.put("changes", owners=[owner], pending=[pending], stored_bytes=[size], **values)


def snapshot_now(room: Room) -> Snapshot:
    [(said,)] = room.run("SELECT pg_current_snapshot()::text")
    return Snapshot.parse(said)


def folded(room: Room, number: int, **held: tuple[int, int]) -> None:
    """What all changes up to this number left."""
    room.run("DELETE FROM outbox_counts")
    for owner, (rows, size) in held.items():
        room.put("counts", owner=owner, pending=rows, stored=9, stored_bytes=size)
    room.run("UPDATE outbox_meta SET changes_folded = %s", [number])


async def test_the_first_read_has_what_is_folded_and_what_changed_since(
    room: Room, counts: PostgresCounts, pool: RoomPool
) -> None:
    for _ in range(2):
        change(room, "a", 50, 50)
    folded(room, 2, a=(2, 20), heavy=(3, 30))
    room.mark(safe_change=4)
    change(room, "a", 1, 10)
    change(room, "b", 1, 5)
    change(room, "a", 3, 100)
    before = snapshot_now(room)
    snapshot = await counts.read(5.0)
    # The server's own work, such as autovacuum, may begin transactions meanwhile.
    assert before.next <= snapshot.next <= snapshot_now(room).next
    assert counts.of("a") == (6, 130)
    assert counts.of("b") == (1, 5)
    assert counts.of("c") == (0, 0)
    assert counts.total == (10, 165)
    assert counts.heavy == {"a", "heavy"}
    assert asked(pool) == [(READ_FOLDED, None), (READ_CHANGES, 2)]


async def test_a_read_without_changes_has_what_is_folded(
    room: Room, counts: PostgresCounts
) -> None:
    await counts.read(5.0)
    assert (counts.total, counts.heavy) == ((0, 0), set())
    folded(room, 0, a=(2, 20))
    assert counts.total == (0, 0)


async def test_a_later_read_adds_each_change_once(
    room: Room, counts: PostgresCounts, pool: RoomPool
) -> None:
    for rows in (1, 2, 4):
        change(room, "a", rows, 10 * rows)
    for safe, total in ((2, 7), (2, 7), (3, 7)):
        room.mark(safe_change=safe)
        await counts.read(5.0)
        assert counts.of("a") == counts.total == (total, 10 * total)
    assert counts.heavy == {"a"}
    change(room, "a", -5, -50)
    change(room, "b", 5, 50)
    await counts.read(5.0)
    assert (counts.of("a"), counts.total, counts.heavy) == ((2, 20), (7, 70), {"b"})
    assert [number for _, number in asked(pool)[1:]] == [0, 2, 2, 3]


@pytest.mark.parametrize(("trimmed", "is_whole"), [(2, True), (3, False)])
async def test_a_reader_that_missed_changes_begins_anew(
    room: Room, counts: PostgresCounts, pool: RoomPool, trimmed: int, *, is_whole: bool
) -> None:
    for rows in (1, 2, 4, 8):
        change(room, "a", rows, 10 * rows)
    room.mark(safe_change=2)
    await counts.read(5.0)
    folded(room, 3, a=(100, 1000), b=(3, 3))
    room.run("UPDATE outbox_meta SET changes_trimmed = %s", [trimmed])
    pool.asked.clear()
    assert await counts.read(5.0)
    again = [] if is_whole else [(READ_FOLDED, None), (READ_CHANGES, 3)]
    assert asked(pool) == [(READ_CHANGES, 2), *again]
    assert counts.of("a") == ((15, 150) if is_whole else (108, 1080))
    assert counts.heavy == ({"a"} if is_whole else {"a", "b"})


async def test_a_reader_begins_anew_once_when_the_database_has_come_back(
    room: Room, counts: PostgresCounts, pool: RoomPool
) -> None:
    """Another server may lack the last changes, and give their numbers again."""
    change(room, "a", 1, 10)
    change(room, "b", 3, 30)
    room.mark(safe_change=2)
    await counts.read(5.0)
    room.run("DELETE FROM outbox_changes WHERE no = 2")
    room.mark(safe_change=1)
    pool.returns = 1
    pool.asked.clear()
    for _ in range(2):
        await counts.read(5.0)
        assert (counts.of("a"), counts.total, counts.heavy) == ((1, 10), (1, 10), set())
    assert asked(pool) == [(READ_FOLDED, None), (READ_CHANGES, 0), (READ_CHANGES, 1)]


async def test_a_mark_that_is_behind_what_is_folded_is_not_read_from(
    room: Room, counts: PostgresCounts, pool: RoomPool
) -> None:
    folded(room, 5, a=(1, 1))
    room.mark(safe_change=2)
    for _ in range(2):
        await counts.read(5.0)
    assert asked(pool)[1:] == [(READ_CHANGES, 5), (READ_CHANGES, 5)]


async def test_a_short_array_ends_in_zeros(room: Room, counts: PostgresCounts) -> None:
    room.put("changes", owners=["a"], pending=[1])
    room.put("changes", owners=["b"], stored_bytes=[1])
    await counts.read(5.0)
    assert (counts.of("a"), counts.of("b")) == ((1, 0), (0, 1))


@pytest.mark.parametrize(
    ("transaction", "is_shown"), [(9, True), (10, False), (11, True), (19, True), (20, False)]
)
def test_a_snapshot_shows_what_had_ended_before(transaction: int, *, is_shown: bool) -> None:
    assert Snapshot.parse("10:20:10,14").shows(transaction) is is_shown
    assert Snapshot.parse("20:20:").shows(transaction) is (transaction < 20)


def test_totals_are_exact_and_know_what_was_lately(room: Room) -> None:
    room.run("UPDATE outbox_meta SET changes_folded = 1, delivered = 10, dead = 20, sent = 30")
    assert room.run(READ_TOTALS, {"seconds": 5}) == [(10, 20, 30, 0)]
    for number, changed_at in enumerate((9, 9, 5, 5.001)):
        figure = 100**number
        done = {"delivered": 3 * figure, "dead": 2 * figure, "sent": figure}
        room.put("changes", changed_at=after(changed_at), **done)
    assert room.at(10).run(READ_TOTALS, {"seconds": 5}) == [
        (3030310, 2020220, 1010130, 4 * 1_000_000 + 4 * 100)
    ]


def fold_all(room: Room) -> None:
    [(last,)] = room.run("SELECT max(no) FROM outbox_changes")
    room.mark(safe_change=last)
    room.run(FOLD)


def settled(room: Room) -> None:
    """Rows of three owners in every place, counted rightly; some of the counts are folded."""
    room.append(*(event(owner) for owner in ("a", "a", "a", "b", "b", "b", "c")))
    room.take(6)
    room.settle("c", delivered=[1], dead=[Dead(4, 1, "no", "no")], sent=[2])
    fold_all(room)
    room.append(event("c"))
    room.take(1, claim="d")
    room.settle("d", delivered=[7])


def last_change(room: Room) -> dict[str, Any]:
    return room.table("changes")[-1]


def test_a_recount_of_right_counts_changes_nothing(room: Room) -> None:
    settled(room)
    room.put("changes", owners=["d"])
    assert room.run(RECOUNT) == [(0,)]
    changed = last_change(room)
    assert changed["owners"] == []
    assert (changed["delivered"], changed["dead"], changed["sent"]) == (0, 0, 0)


def test_a_recount_of_what_is_folded_changes_nothing(room: Room) -> None:
    settled(room)
    fold_all(room)
    assert room.run(RECOUNT) == [(0,)]
    changed = last_change(room)
    assert (changed["delivered"], changed["dead"], changed["sent"]) == (0, 0, 0)


def test_a_recount_corrects_each_count_that_is_wrong(room: Room) -> None:
    settled(room)
    room.put(
        "changes",
        owners=["a", "b", "gone", "c"],
        pending=[5, 0, 0, 0],
        stored=[0, -2, 0, 0],
        stored_bytes=[0, 0, 7, 0],
        delivered=3,
        dead=-4,
        sent=5,
    )
    room.wait(99, size=2)  # its owner is `o`, and nobody counted it
    assert room.run(RECOUNT) == [(4,)]
    changed = last_change(room)
    names = ("owners", "pending", "stored", "stored_bytes")
    assert sorted(zip(*(changed[name] for name in names), strict=True)) == [
        ("a", -5, 0, 0),
        ("b", 0, 2, 0),
        ("gone", 0, 0, -7),
        ("o", 1, 1, 2),
    ]
    assert (changed["delivered"], changed["dead"], changed["sent"]) == (-3, 4, -5)
    assert room.run(RECOUNT) == [(0,)]
