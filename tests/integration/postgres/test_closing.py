"""Which numbers the partitions of a PostgreSQL outbox begin and end with."""

from __future__ import annotations

import psycopg
import pytest

from service.outbox.keys import IdempotencyKey
from tests.support.postgres_room import Room, made_call
from tests.support.repair_room import RepairRoom
from tests.support.storage import event

FIRST = 1 << 36  # of partition 1


def test_a_closing_begins_the_next_partition_behind_the_last_number(
    room: Room, here: RepairRoom
) -> None:
    here.done(7)
    here.done(3)
    room.run("SELECT setval('outbox_seq_seq', 9)")
    room.close_partition()
    closed, opened = room.table("partitions")
    assert (closed["last_seq"], opened["first_seq"]) == (7, FIRST + 10)
    assert closed["closed_at"] is not None
    assert (opened["closed_at"], opened["last_seq"]) == (None, None)
    assert room.run("SELECT nextval('outbox_seq_seq')") == [(FIRST + 10,)]
    room.close_partition()
    before, *after = sorted(room.table("partitions"), key=lambda one: int(one["number"]))
    assert before == closed
    closed, opened = after
    assert (closed["last_seq"], opened["first_seq"]) == (7, 2 * FIRST + 11)


def test_an_empty_partition_is_closed_as_well(room: Room) -> None:
    room.close_partition()
    assert room.table("partitions")[0]["last_seq"] == 0
    assert room.run("SELECT outbox_close_partition()") == [(False,)]
    assert room.run("SELECT outbox_make_partition()") == [(True,)]
    assert room.run("SELECT outbox_make_partition()") == [(False,)]


@pytest.mark.parametrize("last", [FIRST, FIRST + 9])
def test_numbers_that_were_moved_by_a_closing_that_failed_go_on(
    room: Room, here: RepairRoom, last: int
) -> None:
    here.done(7)
    room.run("SELECT setval('outbox_seq_seq', %s)", [last])
    room.close_partition()
    assert room.table("partitions")[1]["first_seq"] == last + 1
    assert room.run("SELECT nextval('outbox_seq_seq')") == [(last + 1,)]


def test_rows_that_came_behind_moved_numbers_are_of_the_next_partition(
    room: Room, here: RepairRoom
) -> None:
    here.done(7)
    room.run("SELECT outbox_make_partition()")
    here.event(FIRST)
    here.event(FIRST + 5)
    room.run("SELECT setval('outbox_seq_seq', %s)", [FIRST + 9])
    room.run("SELECT outbox_close_partition()")
    closed, opened = room.table("partitions")
    assert (closed["last_seq"], opened["first_seq"]) == (7, FIRST)


def test_the_counter_of_numbers_has_32_bits(room: Room) -> None:
    """A partition has room for 16 rounds of it."""
    room.run("SELECT setval('outbox_seq_seq', %s)", [2**32 + 5])
    room.close_partition()
    assert room.table("partitions")[1]["first_seq"] == FIRST + 6


def test_a_key_is_unique_in_a_later_partition(room: Room) -> None:
    """Also where a statement does not see the other use: two calls of one flush."""
    room.close_partition()
    key = IdempotencyKey("k", b"1" * 32)
    one, other = event(), event()
    assert room.store(*(made_call(each, keys=[key]) for each in (one, other))) == [
        (one.id, FIRST + 2)
    ]


def test_an_event_is_stored_once_in_a_later_partition(room: Room) -> None:
    room.close_partition()
    one = {"event_id": "e", "name": "n", "owner": "o", "user_id": "u", "payload": b"x"}
    room.put("", accepted_at_ms=0, **one)
    with pytest.raises(psycopg.errors.UniqueViolation):
        room.put("", accepted_at_ms=0, **one)


def append(room: Room, user: str, key: str) -> str:
    """The id of an event that an application appends with a key."""
    given = (user, key)
    [(event_id,)] = room.run("SELECT outbox.append('n', '{}', %s, idempotency_key => %s)", given)
    room.run("SET CONSTRAINTS ALL IMMEDIATE")
    return str(event_id)


def test_an_applications_key_of_an_earlier_partition_is_its_owners(room: Room) -> None:
    first = append(room, "u-1", "a")
    room.close_partition()
    assert append(room, "u-1", "a") == first
    others = append(room, "u-2", "a"), append(room, "u-1", "b")
    assert len({first, *others}) == len(room.rows("")) == 3


def test_no_key_enters_a_partition_that_is_not_open(room: Room) -> None:
    """A transaction that began before its opening does not see the keys before it."""
    room.run("SELECT outbox_make_partition(), setval('outbox_seq_seq', %s)", [FIRST + 1])
    with pytest.raises(psycopg.errors.SerializationFailure):
        append(room, "u-1", "a")
