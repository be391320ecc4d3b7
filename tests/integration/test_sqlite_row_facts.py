"""What is said of a row of an SQLite outbox, and of those beside a row that can't be read."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
import pytest

from service.outbox.event import Meta
from service.outbox.model import Filter, Row, State
from service.outbox.sqlite import rows
from service.outbox.sqlite.rows import ONE, found_row, matching, readable, row_of
from tests.support.sqlite_room import IDS, PLACES, START_MS, Room
from tests.support.storage import event
from tests.support.work_kinds import sqlite_error

NOW_MS = START_MS + 100_000
NO_TEXT = "CAST(x'75ff' AS TEXT)"


@pytest.fixture
def room() -> Room:
    """Rows 1 to 4 that wait, of the owners u-1 to u-4."""
    room = Room()
    for number in range(1, 5):
        room.append(msgspec.structs.replace(event(f"u-{number}"), meta=Meta(f"w-{number}")))
    return room


def change(room: Room, statement: str, *values: Any) -> None:
    room.connection.execute(statement, values)


def seen(room: Room, **wanted: Any) -> Row:
    [row] = matching(room.connection, Filter(**wanted), NOW_MS)
    return row_of(row, NOW_MS)


def test_a_row_has_all_its_fields(room: Room) -> None:
    change(room, "UPDATE outbox_meta SET inngest_id_prefix = ?", b"prefix")
    given = msgspec.structs.replace(
        event("u-9", name="n", size=300), accepted_at_ms=5000, meta=Meta("w", "e")
    )
    given = msgspec.structs.replace(given, user_id="ada")
    room.append(given)
    change(
        room,
        "UPDATE outbox_ready SET attempts = 3, sends = 4, isolated = 1, first_sent_at_ms = 6000,"
        ' due_at_ms = ?, history = \'[{"at":7,"note":"late"}]\' WHERE seq = 5',
        NOW_MS + 2500,
    )
    assert seen(room, owner="u-9") == Row(
        id=given.id,
        name="n",
        owner="u-9",
        user_id="ada",
        state=State.PENDING,
        attempts=3,
        sends=4,
        isolated=True,
        accepted_at_ms=5000,
        first_sent_at_ms=6000,
        settled_at_ms=None,
        due_in_seconds=2.5,
        lease_in_seconds=None,
        reason=None,
        detail=None,
        history=({"at": 7, "note": "late"},),
        payload_bytes=300,
        inngest_id=IDS.ulid(5, 5000, None),
        seq=5,
        meta=Meta("w", "e"),
    )


def test_a_dead_row_says_when_and_why(room: Room) -> None:
    change(room, "DELETE FROM outbox_ready WHERE seq = 2")
    columns = "(seq, dead, settled_at_ms, isolated, attempts, sends, reason, detail)"
    change(room, f"INSERT INTO outbox_done {columns} VALUES (2, 1, 9, 0, 1, 1, 'r', 'd')")
    row = seen(room, state=State.DEAD)
    assert (row.settled_at_ms, row.reason, row.detail) == (9, "r", "d")
    assert (row.due_in_seconds, row.isolated) == (None, False)


PAST = "isolated, attempts, sends, first_sent_at_ms, history"
ELSEWHERE = {
    "claims": "claim, claimed_at_ms, lease_until_ms, payload_bytes, express",
    "sent": "sent_at_ms",
    "done": "dead, settled_at_ms",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_row_says_what_it_has_been_through_wherever_it_is(room: Room, place: str) -> None:
    past = "isolated = 1, attempts = 3, sends = 4, first_sent_at_ms = 6000, history = '[{}]'"
    change(room, f"UPDATE outbox_ready SET {past} WHERE seq = 2")
    if columns := ELSEWHERE.get(place):
        values = "1" + ", 1" * columns.count(",")
        moved = f"SELECT seq, {PAST}, {values} FROM outbox_ready WHERE seq = 2"
        change(room, f"INSERT INTO outbox_{place} (seq, {PAST}, {columns}) {moved}")
        change(room, "DELETE FROM outbox_ready WHERE seq = 2")
    row = seen(room, owner="u-2")
    assert (row.isolated, row.attempts, row.sends) == (True, 3, 4)
    assert (row.first_sent_at_ms, row.history) == (6000, ({},))


def test_the_first_claim_of_a_row_may_be_when_its_bytes_left_first(room: Room) -> None:
    room.at(700).claim(1)
    assert seen(room, owner="u-1").first_sent_at_ms == START_MS + 700
    assert seen(room, owner="u-2").first_sent_at_ms is None


def test_a_moved_row_keeps_its_id_in_inngest(room: Room) -> None:
    moved = IDS.ulid(77, 1234, None)
    change(room, "UPDATE outbox SET meta = json_object('moved_id', ?) WHERE seq = 2", moved)
    assert seen(room, owner="u-2").inngest_id == moved


@pytest.mark.parametrize(("ahead_ms", "seconds"), [(-1, 0), (0, 0), (1, 0.001), (2500, 2.5)])
def test_the_seconds_to_a_due_time_and_to_the_end_of_a_lease(
    room: Room, ahead_ms: int, seconds: float
) -> None:
    change(room, "UPDATE outbox_ready SET due_at_ms = ? WHERE seq = 2", NOW_MS + ahead_ms)
    assert seen(room, owner="u-2").due_in_seconds == seconds
    assert seen(room, owner="u-2").lease_in_seconds is None
    room.claim(1)
    change(room, "UPDATE outbox_claims SET lease_until_ms = ?", NOW_MS + ahead_ms)
    assert seen(room, state=State.DELIVERING).lease_in_seconds == seconds
    assert seen(room, state=State.DELIVERING).due_in_seconds is None


@pytest.mark.parametrize("history", ["[", "[1]", '{"at":1}'])
def test_a_history_that_can_not_be_read_is_told_in_its_place(room: Room, history: str) -> None:
    change(room, "UPDATE outbox_ready SET history = ? WHERE seq = 2", history)
    told = ({"at": 0, "note": "The history can't be read."},)
    assert seen(room, owner="u-2").history == told
    assert seen(room, owner="u-1").history == ()


def test_one_row_is_seen_at_this_moment(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "wall_now_ms", lambda: NOW_MS)
    change(room, "UPDATE outbox_ready SET due_at_ms = ?", NOW_MS + 2000)
    wanted = seen(room, owner="u-2")
    assert wanted.due_in_seconds == 2
    assert found_row(room.connection, wanted.id) == wanted


def left(connection: Any, **wanted: Any) -> list[int]:
    """The rows that can be read of a damaged file."""
    return [row[0] for row in readable(connection, Filter(**wanted), NOW_MS)]


def test_the_rows_beside_one_that_can_not_be_read_are_found(room: Room) -> None:
    ids = tuple(seen(room, owner=f"u-{number}").id for number in range(1, 5))
    change(room, f"UPDATE outbox SET user_id = {NO_TEXT} WHERE seq = 3")
    assert left(room.connection) == [4, 2, 1]
    assert left(room.connection, limit=2) == [4, 2]
    assert left(room.connection, state=State.PENDING, before_seq=4) == [2, 1]
    assert left(room.connection, state=State.DEAD) == []
    assert left(room.connection, owner="u-2") == [2]
    assert left(room.connection, ids=ids) == [4, 2, 1]
    assert left(room.connection, ids=ids[2:3]) == []


def test_an_alias_in_a_damaged_file_is_no_other_row_s(room: Room) -> None:
    change(room, f"UPDATE outbox SET user_id = {NO_TEXT} WHERE seq = 3")
    assert left(room.connection, alias="w-2", owner="u-2") == [2]
    assert left(room.connection, alias="w-3", owner="u-3") == []
    assert left(room.connection, alias="unknown", owner="u-2") == []


class Watched:
    """A connection; `asked` are the rows that were read by themselves, `fault` the next error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.asked: list[int] = []
        self.fault: Exception | None = None

    def execute(self, statement: str, values: Any) -> sqlite3.Cursor:
        if statement == ONE:
            self.asked.append(values["seq"])
            if self.fault:
                raise self.fault
        return self._connection.execute(statement, values)


def test_only_rows_between_the_given_numbers_are_read(room: Room) -> None:
    watched = Watched(room.connection)
    assert left(watched, before_seq=4, after_seq=1) == watched.asked == [3, 2]


def test_no_row_behind_the_limit_is_read(room: Room) -> None:
    watched = Watched(room.connection)
    assert left(watched, limit=2) == watched.asked == [4, 3]


def test_another_error_than_damage_ends_the_look(room: Room) -> None:
    watched = Watched(room.connection)
    watched.fault = sqlite_error("SQLITE_BUSY")
    with pytest.raises(sqlite3.OperationalError, match="SQLITE_BUSY"):
        left(watched)
