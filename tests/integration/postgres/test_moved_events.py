"""What a move reads of the events of a PostgreSQL outbox, and writes into one."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from service.outbox.inngest_id import InngestIds
from service.outbox.move.transfer import TransferRow
from service.outbox.postgres import transfer
from service.outbox.postgres.transfer import PostgresTransferEvents
from tests.support.explained import explained, nodes
from tests.support.moved_rows import PLAIN, PREFIX, ROWS, payload, payloads, row
from tests.support.postgres_room import START_MS, Room, after


@pytest.fixture
def empty(room: Room) -> PostgresTransferEvents:
    room.run("UPDATE outbox_meta SET inngest_id_prefix = %s", [PREFIX])
    return PostgresTransferEvents(room.connection)


@pytest.fixture
def events(empty: PostgresTransferEvents) -> PostgresTransferEvents:
    empty.write(ROWS, payloads(*ROWS))
    return empty


def seqs_of(rows: list[TransferRow]) -> list[int]:
    return [one.seq for one in rows]


def test_rows_come_back_as_they_were_written(room: Room, events: PostgresTransferEvents) -> None:
    assert events.page(0, 9) == ROWS
    assert [one.digest() for one in events.page(0, 9)] == [one.digest() for one in ROWS]
    assert room.places() == {1: "ready", 2: "sent", 3: "done", 4: "done", 5: "ready"}
    ready = room.rows("ready")
    assert [one["payload_bytes"] for one in ready.values()] == [len(payload("e-1"))] * 2
    assert [one["due_at"] for one in ready.values()] == [0, 0]
    assert {seq: one["dead"] for seq, one in room.rows("done").items()} == {3: False, 4: True}


def test_pages_follow_each_other_with_their_payloads(events: PostgresTransferEvents) -> None:
    assert seqs_of(events.page(1, 2)) == [2, 3]
    assert seqs_of(events.page(5, 2)) == []
    assert events.payloads(["e-1", "e-5", "e-9"]) == payloads(ROWS[0], ROWS[4])


def test_events_and_notes_come_in_their_order(room: Room, events: PostgresTransferEvents) -> None:
    room.wait(9, 7, 8)
    for at_ms, note in ((3, "b"), (3, "a"), (1, "c")):
        room.put("notes", seq=9, at_ms=at_ms, note=note)
    assert seqs_of(events.page(5, 2)) == [7, 8]
    assert seqs_of(events.page(0, 9)) == [1, 2, 3, 4, 5, 7, 8, 9]
    assert events.page(8, 1)[0].history == ((1, "c"), (3, "a"), (3, "b"))


def put_claim(room: Room, lease: float, *seqs: int) -> None:
    arrays = {"seqs": list(seqs), "attempts": [1] * len(seqs), "sends": [4] * len(seqs)}
    arrays |= {"isolated": [True] * len(seqs), "first_sent_at_ms": [None] * len(seqs)}
    room.put("claims", claim=f"{seqs}", lease_until=after(lease), claimed_at_ms=3, **arrays)


def test_a_claimed_row_is_given_as_the_row_that_it_becomes(
    room: Room, empty: PostgresTransferEvents
) -> None:
    for seq in (1, 2, 3):
        room.wait(seq)
    room.run("TRUNCATE outbox_ready")
    put_claim(room, 10, 1, 3)
    put_claim(room, 9.999, 2)
    room.mark(lease_from=after(10))
    given = [(1, "pending", 1, 5, True, 3), (3, "pending", 1, 5, True, 3)]
    found = empty.page(0, 9)
    assert [
        (one.seq, one.state, one.attempts, one.sends, one.isolated, one.first_sent_at_ms)
        for one in found
    ] == given
    assert [one.due_at_ms for one in found] == [0, 0]


def test_a_held_event_is_given_with_its_time(room: Room, empty: PostgresTransferEvents) -> None:
    room.wait(1, 2, due=0.123)
    room.wait(3)
    room.run("UPDATE outbox_ready SET held = true WHERE seq = 2")
    assert [one.due_at_ms for one in empty.page(0, 9)] == [0, START_MS + 123, 0]


@pytest.mark.parametrize(
    ("due", "due_from", "lane", "held"),
    [
        (None, 0, 100, False),
        (99, 0, 100, False),
        (100, 0, 100, False),
        (100.125, 0, 100.125, True),
        (100.125, 150, 150, False),
        (150, 150, 150, False),
        (150.125, 150, 150.125, True),
    ],
)
def test_an_event_is_written_as_held_until_a_later_time_than_now_and_the_mark(
    room: Room,
    empty: PostgresTransferEvents,
    due: float | None,
    due_from: float,
    lane: float,
    *,
    held: bool,
) -> None:
    room.at(100).mark(due_from=after(due_from))
    one = row(1, due_at_ms=0 if due is None else START_MS + round(due * 1000))
    empty.write([one], payloads(one))
    [found] = room.table("ready")
    assert (found["due_at"], found["held"]) == (lane, held)
    assert [there.due_at_ms for there in empty.page(0, 9)] == [one.due_at_ms if held else 0]
    room.at(lane - 0.001)
    assert room.take() == ([1] if lane == due_from else [])
    if lane != due_from:
        assert room.at(lane).take() == [1]


def test_all_events_are_removed_from_every_place(
    room: Room, events: PostgresTransferEvents
) -> None:
    events.clear()
    assert room.places() == {}
    assert room.table("notes") == []
    assert events.page(0, 9) == []


def test_a_write_is_whole_or_not_at_all(events: PostgresTransferEvents) -> None:
    with pytest.raises(KeyError):
        events.write([row(8), row(9)], payloads(row(8)))
    with pytest.raises(psycopg.errors.NotNullViolation):
        events.write([row(9, state="sent", settled_at_ms=None)], payloads(row(9)))
    assert events.page(0, 9) == ROWS


def test_new_events_keep_their_order_however_they_are_joined(
    room: Room, empty: PostgresTransferEvents
) -> None:
    room.run(
        "SET LOCAL enable_hashjoin = off; SET LOCAL enable_nestloop = off; SET LOCAL jit = off"
    )
    given = [row(5), row(3), row(4), row(1)]
    empty.write(given, payloads(*given))
    found = sorted(empty.page(0, 9), key=lambda one: one.seq)
    assert [one.id for one in found] == ["e-5", "e-3", "e-4", "e-1"]
    assert list(room.rows("ready")) == [1, 2, 3, 4]


def test_the_id_in_inngest_of_an_event_from_elsewhere_stays(
    room: Room, events: PostgresTransferEvents
) -> None:
    room.run("UPDATE outbox_meta SET inngest_id_prefix = %s", [b"uvwxyz"])
    room.run("UPDATE outbox SET inngest_id = NULL WHERE seq = 2")
    other = InngestIds(b"uvwxyz").ulid(2, PLAIN["accepted_at_ms"])
    assert {one.inngest_id for one in events.page(0, 2)} == {ROWS[0].inngest_id, other}


def rows_of(room: Room, part: str, statement: str, given: dict[str, Any]) -> int:
    """How many rows this part of a statement finds."""
    plan = explained(room.connection, statement, given)
    [found] = [one for one in nodes(plan) if one.get("Subplan Name") == f"CTE {part}"]
    return round(found["Actual Rows"])


PART = 2**24


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([], [0]),
        ([1], [1]),
        ([PART], [1]),
        ([PART + 1], [1]),
        ([PART - 1, 1, 1], [2, 1]),
        ([PART, 1, PART - 1, 1], [1, 2, 1]),
        ([PART + 1, PART + 1], [1, 1]),
        ([PART // 2] * 5, [2, 2, 1]),
    ],
)
def test_events_are_written_in_parts_of_sixteen_mebibytes(
    sizes: list[int], parts: list[int]
) -> None:
    given = [row(seq) for seq in range(len(sizes))]
    lengths: Any = {one.id: range(size) for one, size in zip(given, sizes, strict=True)}
    made = list(transfer._parts(given, lengths))
    assert [one for part in made for one in part] == given
    assert [len(part) for part in made] == parts
