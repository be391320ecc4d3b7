"""Rows that name an event which the file lacks: how many are found, and among which."""

from __future__ import annotations

import sqlite3

import pytest

from service.outbox.sqlite.damage import SENTENCE
from service.outbox.sqlite.faults import is_damage
from service.outbox.sqlite.missing import (
    MISSING_BETWEEN,
    count_missing,
    missing_events,
    missing_fault,
)
from tests.support.sqlite_room import PLACES, Room
from tests.support.storage import event

NAMED = {
    "ready": "(seq, payload_bytes) SELECT value, 1",
    "claims": "(seq, claim, claimed_at_ms, lease_until_ms, payload_bytes, express, isolated,"
    " attempts, sends) SELECT value, 'c', 0, 0, 1, 0, 0, 0, 0",
    "sent": "(seq, sent_at_ms, isolated, attempts, sends, first_sent_at_ms)"
    " SELECT value, 0, 0, 0, 0, 0",
    "done": "(seq, dead, settled_at_ms, isolated, attempts, sends) SELECT value, 0, 0, 0, 0, 0",
}


@pytest.fixture
def room() -> Room:
    """An outbox with 3 waiting events."""
    room = Room()
    room.append(event(), event(), event())
    return room


def name(room: Room, place: str, first: int, last: int) -> None:
    """Rows with these numbers that name no event."""
    room.connection.execute(
        "WITH RECURSIVE n (value) AS (SELECT ? UNION ALL SELECT value + 1 FROM n WHERE value < ?)"
        f" INSERT INTO outbox_{place} {NAMED[place]} FROM n",
        (first, last),
    )


@pytest.mark.parametrize(
    ("place", "found"), [("ready", 1), ("claims", 1), ("sent", 1), ("done", 0)]
)
def test_a_row_that_waits_for_a_missing_event_is_counted(
    room: Room, place: str, found: int
) -> None:
    assert count_missing(room.connection) == 0
    name(room, place, 7, 7)
    assert count_missing(room.connection) == found


def test_of_many_pending_rows_the_first_and_the_last_thousand_are_looked_at(room: Room) -> None:
    room.connection.execute("DELETE FROM outbox_ready")
    name(room, "ready", 11, 2015)
    assert count_missing(room.connection) == 2000
    room.connection.execute("DELETE FROM outbox_ready WHERE seq IN (11, 1012, 2015)")
    assert count_missing(room.connection) == 2000


@pytest.mark.parametrize(("place", "most"), [("claims", 10_000), ("sent", 1000)])
def test_of_many_other_rows_the_first_are_looked_at(room: Room, place: str, most: int) -> None:
    name(room, place, 11, most + 11)
    assert count_missing(room.connection) == most


def missing_between(connection: sqlite3.Connection, after: int, upto: int) -> int:
    [(count,)] = connection.execute(MISSING_BETWEEN, {"after": after, "upto": upto}).fetchall()
    return int(count)


@pytest.mark.parametrize("place", PLACES)
def test_between_two_numbers_all_rows_are_looked_at(room: Room, place: str) -> None:
    name(room, place, 11, 19)
    assert missing_between(room.connection, 12, 15) == 3
    assert missing_between(room.connection, 0, 99) == 9
    assert missing_between(room.connection, 0, 10) == 0
    assert missing_between(room.connection, 19, 99) == 0


def test_the_error_is_one_of_a_damaged_file_and_says_how_many() -> None:
    one, many = missing_events(1), missing_events(1234)
    assert is_damage(one)
    assert str(one) == "1 waiting row names an event that the file lacks."
    assert one.sqlite_errorname == "SQLITE_CORRUPT"
    assert str(many) == "1,234 waiting rows name events that the file lacks."
    assert missing_fault(1) == f"{one} {SENTENCE}"
    assert missing_fault(0).startswith("0 waiting rows")
