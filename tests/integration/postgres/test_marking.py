"""The next mark on PostgreSQL: when it is made, whom it waits for, and what it may pass."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.postgres_room import START_MS, Room, after

WINDOW = 200_000
FIRST = 1 << 36  # of the second partition
GONE = -math.inf
# Hides the server's own view; a test says who holds which lock.
LOCKS = """
CREATE TABLE clock.pg_locks (locktype text, mode text, database oid, relation oid, pid integer,
                             virtualtransaction text)
"""
HOLD = """
INSERT INTO clock.pg_locks
SELECT 'relation', 'RowExclusiveLock', oid, 'outbox_ready'::regclass, 1, %s
FROM pg_database WHERE datname = current_database()
"""
# What an outbox knows that was looked at before: each step of a position, and its time.
BEFORE: dict[str, Any] = {
    "made_at": after(0),
    "drawn_seq": 7,
    "drawn_change": 8,
    "watched_seq": 5,
    "watched_change": 6,
    "watched_at": after(-10),
    "safe_seq": 3,
    "safe_change": 4,
    "safe_at": after(-20),
}
STEPS = ("drawn", "watched", "safe")


@pytest.fixture(autouse=True)
def _looked_at(room: Room) -> None:
    room.run(LOCKS)
    room.mark(**BEFORE)
    room.run("SELECT setval('outbox_seq_seq', 9), setval('outbox_changes_no_seq', 10)")


def look(room: Room, *writers: str, interval: float = 0.0) -> dict[str, Any]:
    """The mark after a look beside these writers."""
    for writer in writers:
        room.run(HOLD, [writer])
    room.look(interval)
    [mark] = room.table("mark")
    return mark


def steps(mark: dict[str, Any]) -> list[tuple[int, int]]:
    return [(mark[f"{one}_seq"], mark[f"{one}_change"]) for one in STEPS]


@pytest.mark.parametrize(
    ("before", "now", "writers", "watched", "safe"),
    [
        ([], [], [], (7, 8, 0.0), (7, 8, 0.0)),
        (["a"], [], [], (7, 8, 0.0), (7, 8, 0.0)),
        ([], ["a", "a"], ["a"], (7, 8, 0.0), (5, 6, -10.0)),
        (["a"], ["b"], ["b"], (7, 8, 0.0), (5, 6, -10.0)),
        (["a", "b"], ["b", "c"], ["b"], (5, 6, -10.0), (3, 4, -20.0)),
    ],
)
def test_a_position_is_safe_when_all_have_ended_that_wrote_when_it_was_drawn(
    room: Room,
    before: list[str],
    now: list[str],
    writers: list[str],
    watched: tuple[int, int, float],
    safe: tuple[int, int, float],
) -> None:
    room.mark(writers=before)
    mark = look(room.at(5), *now)
    assert (mark["made_at"], mark["writers"]) == (5.0, writers)
    assert steps(mark) == [(9, 10), watched[:2], safe[:2]]
    assert (mark["watched_at"], mark["safe_at"]) == (watched[2], safe[2])


def test_a_sequence_that_was_never_called_has_given_no_number(room: Room) -> None:
    for name in ("outbox_seq_seq", "outbox_changes_no_seq"):
        room.run(f"SELECT setval('{name}', 1, false)")
    assert steps(look(room.at(5)))[0] == (0, 0)


@pytest.mark.parametrize(
    ("change", "is_writer"),
    [
        ("relation = 'outbox_claims'::regclass", True),
        ("relation = 'outbox_sent'::regclass", True),
        ("relation = 'outbox_changes'::regclass", True),
        ("relation = 'outbox'::regclass", False),
        ("pid = NULL", True),  # a prepared transaction
        ("pid = pg_backend_pid()", False),
        ("locktype = 'tuple'", False),
        ("mode = 'AccessShareLock'", False),
        ("database = 0", False),
    ],
)
def test_who_holds_a_lock_on_a_written_table_is_a_writer(
    room: Room, change: str, *, is_writer: bool
) -> None:
    room.run(HOLD, ["a"])
    room.run(f"UPDATE clock.pg_locks SET {change}")
    assert look(room.at(5))["writers"] == (["a"] if is_writer else [])


@pytest.mark.parametrize(
    ("at", "interval", "changes", "is_made"),
    [
        (9.999, 99.0, {}, False),
        (10.0, 99.0, {}, True),
        (1.999, 2.0, {}, False),
        (2.0, 2.0, {}, True),
        (2.0, 2.0, {"ready_from": 10, "safe_change": 10}, False),
        (10.0, 2.0, {"ready_from": 10, "safe_change": 10}, True),
        (2.0, 2.0, {"ready_from": 11, "safe_change": 10}, True),
        (2.0, 2.0, {"ready_from": 10, "safe_change": 9}, True),
        (-1.0, 0.0, {}, False),
        (-1.001, 99.0, {}, True),
    ],
)
def test_a_mark_is_made_when_it_is_time_and_something_was_written_or_the_clock_was_set_back(
    room: Room, at: float, interval: float, changes: dict[str, Any], *, is_made: bool
) -> None:
    room.mark(**changes)
    [(*_, made, soon)] = room.at(at).look(interval)
    assert (made, soon) == (is_made, is_made)
    [(commits,)] = room.run("SELECT current_setting('synchronous_commit')")
    assert (commits == "off") is is_made


# ready_from, the safe seq, the waiting rows, and where the mark is then.
READY = [
    (1, 10, [], 11),
    (1, 10, [7, 5, 9], 5),
    (1, 10, [1], 1),
    (1, 10, [11], 11),
    (5, 10, [3], 11),
    (8, 5, [], 8),
    (1, WINDOW + 1, [], WINDOW + 1),
    (1, WINDOW + 99, [WINDOW + 50], WINDOW + 1),
]


@pytest.mark.parametrize(("ready_from", "safe", "waiting", "passed"), READY)
def test_new_rows_are_passed_when_they_are_gone_and_their_numbers_safe(
    room: Room, ready_from: int, safe: int, waiting: list[int], passed: int
) -> None:
    room.mark(ready_from=ready_from, safe_seq=safe)
    room.wait(*waiting)
    room.wait(4, due=0)
    assert look(room.at(5))["ready_from"] == passed


@pytest.mark.parametrize(
    ("ready_from", "passed"),
    [
        (50, 50 + WINDOW),
        (99, 99 + WINDOW),
        (100, FIRST),
        (150, FIRST),
        (FIRST, FIRST + WINDOW),
        (FIRST + 99, FIRST + 99 + WINDOW),
        (FIRST + 100, 2 * FIRST),
        (2 * FIRST, 2 * FIRST),
    ],
)
def test_numbers_between_partitions_are_passed(room: Room, ready_from: int, passed: int) -> None:
    room.run("DELETE FROM outbox_partitions")
    for number, last in enumerate([99, FIRST + 99, None]):
        room.put("partitions", number=number, first_seq=number * FIRST, last_seq=last)
    room.mark(ready_from=ready_from, safe_seq=40)
    assert look(room.at(5))["ready_from"] == passed


# Seconds: what is safe, the rows of a lane, and where the mark is then; it was at 10.
TIMES = [
    (50, [], 48),
    (50, [30, 20, 40], 20),
    (50, [10, 30], 10),
    (50, [9], 48),
    (50, [49], 48),
    (11.5, [], 10),
]


@pytest.mark.parametrize(("safe", "rows", "passed"), TIMES)
@pytest.mark.parametrize("isolated", [False, True])
def test_delayed_rows_are_passed_when_they_are_gone_and_their_time_is_safe(
    room: Room, safe: float, rows: list[float], passed: float, *, isolated: bool
) -> None:
    room.at(100).mark(due_from=after(10), isolated_from=after(10), safe_at=after(safe))
    for seq, due in enumerate(rows):
        room.wait(seq + 1, due=due, isolated=isolated)
    mark = look(room)
    lanes = ("isolated_from", "due_from") if isolated else ("due_from", "isolated_from")
    assert [mark[lane] for lane in lanes] == [passed, max(10, safe - 2)]


@pytest.mark.parametrize(("safe", "leases", "passed"), TIMES)
def test_leases_are_passed_when_they_are_gone_and_their_time_is_safe(
    room: Room, safe: float, leases: list[float], passed: float
) -> None:
    room.at(100).mark(lease_from=after(10), safe_at=after(safe))
    for lease in leases:
        put_claim(room, lease)
    assert look(room)["lease_from"] == passed


def put_claim(room: Room, lease: float) -> None:
    arrays = ("seqs", "attempts", "sends", "isolated", "first_sent_at_ms")
    nothing = dict.fromkeys(arrays, "{}")
    room.put("claims", claim=f"{lease}", lease_until=after(lease), claimed_at_ms=0, **nothing)


@pytest.mark.parametrize(
    ("lease", "is_over"), [(9.999, False), (10.0, True), (100.0, True), (100.001, False)]
)
def test_a_look_says_whether_a_lease_is_over(room: Room, lease: float, *, is_over: bool) -> None:
    room.at(100).mark(lease_from=after(10))
    put_claim(room, lease)
    [(over, *_)] = room.look()
    assert over is is_over


@pytest.mark.parametrize(("safe", "sent", "passed"), TIMES)
def test_sent_rows_are_passed_when_they_are_gone_and_their_time_is_safe(
    room: Room, safe: float, sent: list[float], passed: float
) -> None:
    room.at(100).mark(sent_from=START_MS + 10_000, safe_at=after(safe))
    past = {"first_sent_at_ms": 0, "attempts": 1, "sends": 1, "isolated": False}
    for seq, seconds in enumerate(sent):
        room.put("sent", seq=seq, sent_at_ms=START_MS + seconds * 1000, **past)
    assert look(room)["sent_from"] == START_MS + passed * 1000


def test_no_time_is_passed_before_one_is_safe(room: Room) -> None:
    lanes = dict.fromkeys(("due_from", "isolated_from", "lease_from"), after(10))
    room.at(100).mark(**lanes, sent_from=START_MS, safe_at="-infinity")
    mark = look(room)
    assert [mark[lane] for lane in lanes] == [10.0, 10.0, 10.0]
    assert mark["sent_from"] == 0


@pytest.mark.parametrize("writers", [["a"], ["b"], []])
def test_times_begin_anew_when_the_clock_was_set_back(room: Room, writers: list[str]) -> None:
    lanes = dict.fromkeys(("due_from", "isolated_from", "lease_from"), after(50))
    room.mark(**lanes, sent_from=START_MS, made_at=after(102), safe_seq=20, writers=["a"])
    mark = look(room.at(100), *writers)
    times = (*lanes, "watched_at", "safe_at")
    assert [mark[name] for name in times] == [GONE] * 5
    assert (mark["sent_from"], mark["ready_from"], mark["made_at"]) == (0, 21, 100.0)


def test_old_marks_go(room: Room) -> None:
    room.run("INSERT INTO outbox_marks (made_at) SELECT %s FROM generate_series(1, 99)", [after(0)])
    last = look(room.at(5))["no"]
    left = {row["no"] - last for row in room.table("marks")}
    assert {one for one in left if one > -99} == {*range(-98, -79), *range(-19, 1)}


@pytest.mark.parametrize(
    ("seqs", "lane", "waits"),
    [
        ([9], {}, False),
        ([10], {}, True),
        ([11, 12], {}, True),
        ([10], {"express": False}, False),
        ([12], {"due": 20}, True),
        ([12, 13], {"due": 200}, True),
        ([12], {"due": 19.999}, False),
        ([12], {"due": 30, "isolated": True}, False),
        ([12], {"due": 30, "express": False}, False),
    ],
)
def test_a_look_says_whether_express_rows_wait(
    room: Room, seqs: list[int], lane: dict[str, Any], *, waits: bool
) -> None:
    room.at(100).mark(ready_from=10, due_from=after(20))
    room.wait(*seqs, **{"express": True, **lane})
    [(_, found, *_)] = room.look(99.0)
    assert found is waits
