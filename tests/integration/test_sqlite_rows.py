"""Rows of an SQLite outbox: which match a filter, by what they are found, what is said of each."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from service.outbox.event import Meta
from service.outbox.model import Dead, Filter, State
from service.outbox.sqlite.rows import count, found_row, matching, readable
from tests.support.sqlite_room import START_MS, Room
from tests.support.storage import event

NOW_MS = START_MS + 100_000
STATES = [State.DEAD, State.DELIVERED, State.SENT, State.DELIVERING, State.PENDING]


@pytest.fixture
def room() -> Room:
    return Room()


def store(room: Room, *owners: str, **changes: Any) -> None:
    """Events of these owners with such fields, each in a call of its own."""
    for owner in owners:
        room.append(msgspec.structs.replace(event(owner), **changes))


def change(room: Room, statement: str, *values: Any) -> None:
    room.connection.execute(statement, values)


@pytest.fixture
def each(room: Room) -> Room:
    """Rows 1 to 5 in the states of STATES, of the owners u-1 to u-5."""
    store(room, *(f"u-{number}" for number in range(1, 6)))
    for settled in (
        {"dead": [Dead(1, 4, "rejected", "words")]},
        {"delivered": [2]},
        {"sent": [3]},
    ):
        batch = room.claim(1)
        assert batch
        room.settle(batch.claim, **settled)
    room.claim(1)
    return room


def found(room: Room, **wanted: Any) -> list[int]:
    """The numbers of the rows that match, however they are looked for."""
    asked = Filter(**wanted)
    listed = [row[0] for row in matching(room.connection, asked, NOW_MS)]
    assert count(room.connection, asked, NOW_MS) == len(listed)
    assert [row[0] for row in readable(room.connection, asked, NOW_MS)] == listed
    return listed


@pytest.mark.parametrize("state", STATES)
def test_each_state_has_its_rows(each: Room, state: State) -> None:
    seq = STATES.index(state) + 1
    assert found(each, state=state) == [seq]
    assert found(each, state=state, owner=f"u-{seq}") == [seq]
    assert found(each, state=state, owner=f"u-{seq}", after_seq=0) == [seq]
    assert found(each, state=state, owner="u-9", after_seq=0) == []
    assert found(each, state=state, id_prefix="0") == [seq]
    ids = tuple(row[1] for row in matching(each.connection, Filter(), NOW_MS))
    assert found(each, state=state, ids=ids) == [seq]
    change(each, "UPDATE outbox SET meta = json_object('moved_id', 'moved')")
    assert found(each, state=state, alias="moved") == [seq]


def test_rows_of_all_states_come_newest_first_up_to_the_limit(each: Room) -> None:
    assert found(each) == [5, 4, 3, 2, 1]
    assert found(each, limit=2) == [5, 4]
    assert found(each, before_seq=4) == [3, 2, 1]
    assert found(each, after_seq=2) == [5, 4, 3]
    assert found(each, before_seq=4, after_seq=2) == [3]


def test_a_row_is_found_by_each_of_its_fields(each: Room) -> None:
    change(each, "UPDATE outbox SET name = 'other', user_id = 'ada' WHERE seq = 4")
    assert found(each, owner="u-4") == [4]
    assert found(each, user_id="ada") == [4]
    assert found(each, name="other") == [4]
    assert found(each, reason="rejected") == [1]
    assert found(each, owner="u-4", name="other", user_id="ada", reason="rejected") == []


def test_the_bounds_of_times_are_exact(room: Room) -> None:
    store(room, "u-1", "u-1", "u-1")
    for seq in (1, 2, 3):
        change(room, "UPDATE outbox SET accepted_at_ms = ? WHERE seq = ?", START_MS + seq, seq)
    assert found(room, since_ms=START_MS + 2) == [3, 2]
    assert found(room, until_ms=START_MS + 2) == [1]
    assert found(room, older_than_seconds=99.998) == [2, 1]
    assert found(room, since_ms=START_MS + 2, until_ms=START_MS + 3) == [2]


def test_a_row_is_found_by_its_id_and_by_how_it_begins(room: Room) -> None:
    for event_id in ("ab", "a", "b", "a\U0010ffff", "aa"):
        store(room, "u-1", id=event_id)
    assert found(room, id_prefix="a") == [5, 2, 1]
    assert found(room, id_prefix="a", state=State.PENDING) == [5, 2, 1]
    assert found(room, id_prefix="ab") == [1]
    assert found(room, ids=("b", "a", "b", "x")) == [3, 2]
    assert found(room, ids=()) == []
    row = found_row(room.connection, "b")
    assert row
    assert row.id == "b"
    assert found_row(room.connection, "x") is None


def test_a_row_is_found_by_what_its_sender_or_another_outbox_called_it(room: Room) -> None:
    longest = "i" * 255
    for wire_id in ("mine", longest, f"{longest}i"):
        store(room, "u-1", "u-2", meta=Meta(wire_id))
    change(room, "UPDATE outbox SET meta = json_object('moved_id', 'moved') WHERE seq = 3")
    assert found(room, alias="mine", owner="u-1") == [1]
    assert found(room, alias=longest, owner="u-2") == [4]
    assert found(room, alias=f"{longest}i", owner="u-1") == []
    assert found(room, alias="moved") == found(room, alias="moved", owner="u-1") == [3]
    assert found(room, alias="moved", owner="u-2") == found(room, alias="mine") == []


def test_rows_that_were_never_sent_are_pending_and_have_no_sends(room: Room) -> None:
    store(room, *["u-1"] * 5)
    change(room, "UPDATE outbox_ready SET sends = 1 WHERE seq = 2")
    change(room, "UPDATE outbox_ready SET first_sent_at_ms = 1 WHERE seq = 3")
    change(room, "DELETE FROM outbox_ready WHERE seq = 4")
    done = "INSERT INTO outbox_done (seq, dead, settled_at_ms, isolated, attempts, sends)"
    change(room, f"{done} VALUES (4, 1, 1, 0, 0, 0)")
    assert found(room, never_sent=True) == [5, 1]
    assert found(room, never_sent=True, owner="u-1", limit=1) == [5]


def test_the_highest_number_is_found_too(room: Room) -> None:
    store(room, "u-1")
    for table in ("outbox", "outbox_ready"):
        change(room, f"UPDATE {table} SET seq = ?", 2**63 - 2)
    assert found(room) == [2**63 - 2]


def test_of_ids_that_begin_alike_the_ten_thousand_highest_are_searched(room: Room) -> None:
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001)"
    columns = "(event_id, name, owner, user_id, accepted_at_ms, payload)"
    values = "SELECT printf('a%06d', 900000 - i), 'n', 'u-1', 'u-1', 1, x'00' FROM n"
    change(room, f"{numbers} INSERT INTO outbox {columns} {values}")
    change(room, "INSERT INTO outbox_ready (seq, payload_bytes) SELECT seq, 1 FROM outbox")
    wanted = Filter(id_prefix="a", limit=20_000)
    assert count(room.connection, wanted, NOW_MS) == 10_000
    assert matching(room.connection, wanted, NOW_MS)[0][0] == 10_000
    assert len(found(room, id_prefix="a", state=State.PENDING, limit=20_000)) == 10_001


def plan(room: Room, **wanted: Any) -> list[str]:
    """What SQLite reads for a filter."""
    asked: list[str] = []
    room.connection.set_trace_callback(asked.append)
    matching(room.connection, Filter(**wanted), NOW_MS)
    room.connection.set_trace_callback(None)
    steps = room.connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}")
    return [step for *_, step in steps]


OWNER = "outbox_owner (owner=?"
DEAD_ROWS = "outbox_done USING COVERING INDEX outbox_done_dead"
BY_ID = "sqlite_autoindex_outbox_1 (event_id>? AND event_id<?"


@pytest.mark.parametrize(
    ("wanted", "step"),
    [
        ({}, "outbox USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        ({"owner": "u-1"}, OWNER),
        ({"owner": "u-1", "state": State.DEAD, "after_seq": 1}, OWNER),
        ({"owner": "u-1", "state": State.DEAD}, DEAD_ROWS),
        ({"owner": "u-1", "id_prefix": "a"}, OWNER),
        ({"state": State.DEAD, "after_seq": 1}, DEAD_ROWS),
        ({"state": State.DEAD, "id_prefix": "a"}, DEAD_ROWS),
        ({"id_prefix": "a"}, BY_ID),
        ({"id_prefix": "a", "after_seq": 1}, BY_ID),
        ({"ids": ("a",), "owner": "u-1"}, "sqlite_autoindex_outbox_1 (event_id=?"),
        ({"alias": "a", "owner": "u-1"}, "outbox_wire_id (owner=? AND <expr>=?"),
    ],
)
def test_a_filter_reads_by_its_narrowest_index(
    room: Room, wanted: dict[str, Any], step: str
) -> None:
    steps = plan(room, **wanted)
    assert any(step in one for one in steps), steps
