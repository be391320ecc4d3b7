"""Claims on an SQLite outbox: when rows are looked for, when leases end, what nobody received."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.outbox.model import Isolated, Retry
from service.outbox.sqlite.commit import transact
from tests.support.sqlite_room import START_MS, Room, seqs_of
from tests.support.storage import ask, event
from tests.support.work_kinds import Kind


def filled(count: int) -> Room:
    room = Room()
    for at in range(count):
        room.append(event(f"u-{at + 1}"))
    return room


def due(room: Room, *, waiting: bool = True) -> float | None:
    return room.claims.due_in_seconds(waiting=waiting)


def test_a_claim_that_finds_nothing_waits_for_the_next_row_that_is_due() -> None:
    room = filled(3)
    assert due(room) is None
    batch = room.claim(lease_seconds=30.0)
    assert batch
    assert due(room) is None
    room.put_back(batch, 1, delay=7.5)
    assert room.claim() is None
    assert due(room) == 7.5
    assert due(room, waiting=False) is None
    room.at(5000)
    assert due(room) == 2.5
    room.at(9000)
    assert due(room) == 0.0
    assert room.take() == [1]
    assert due(room) is None


@pytest.mark.parametrize(
    ("rows", "leases", "expected"),
    [
        ([], [], None),
        ([(300, 0), (200, 0)], [], 0.2),
        ([(300, 1), (200, 1)], [], 0.2),
        ([(300, 0)], [100, 400], 0.1),
        ([(300, 0), (100, 1)], [400], 0.1),
        ([(0, 1)], [], None),  # due, but not wanted: it is not asked for again and again
        ([(-100, 1), (500, 1)], [], 0.5),
    ],
)
def test_what_is_due_next_is_a_delay_or_a_lease(
    rows: Sequence[tuple[int, int]], leases: Sequence[int], expected: float | None
) -> None:
    room = filled(len(rows) + len(leases))
    held = [room.claim(1, lease_seconds=at / 1000) for at in leases]
    assert None not in held
    for seq, (at, isolated) in enumerate(rows, len(leases) + 1):
        room.connection.execute(
            "UPDATE outbox_ready SET due_at_ms = ?, isolated = ? WHERE seq = ?",
            (START_MS + at, isolated, seq),
        )
    assert room.claim(isolated=Isolated.NONE) is None
    assert due(room) == expected


def test_a_lease_ends_when_it_says_where_a_claim_waits_for_it() -> None:
    room = filled(2)
    first = room.claim(1, lease_seconds=0.3)
    second = room.claim(1, lease_seconds=30.0)
    assert room.claim() is None
    assert due(room) == 0.3
    assert room.at(299).claim() is None
    again = room.at(300).claim()
    assert seqs_of(again) == [1]
    assert again
    assert (again.entries[0].sends, again.entries[0].first_sent_at_ms) == (1, START_MS)
    assert set(room.claims.held) == {second.claim, again.claim}  # type: ignore[union-attr]
    assert room.settle(first.claim, delivered=[1]) == 1  # type: ignore[union-attr]
    assert room.counts.total == 2


def test_ended_leases_are_looked_for_once_a_second_while_other_rows_are_there() -> None:
    room = filled(9)
    assert room.take(1, lease_seconds=0.1) == [1]
    assert room.at(500).take(1) == [2]
    assert room.at(999).take(1) == [3]
    assert room.at(1000).take(1) == [1]
    assert room.at(1000).take(1) == [4]
    room.at(1001).take(1, lease_seconds=0.1)
    assert room.at(1999).take(1) == [6]
    assert room.at(2000).take(1) == [5]


class Boom(Kind):
    def apply(self, connection: sqlite3.Connection, items: Iterable[Any]) -> list[Any]:
        raise ZeroDivisionError


def rolled_back(room: Room, *items: Any) -> None:
    """A transaction with a claim in it that fails."""
    with pytest.raises(ZeroDivisionError):
        transact(room.connection, [(room.claims, items), (Boom(), ["x"])], None)
    room.claims.failed(items)


def test_after_a_rollback_ended_leases_and_batches_that_nobody_received_are_freed_again() -> None:
    room = filled(3)
    assert room.take(1, lease_seconds=0.1) == [1]
    lost = room.claim(1)
    assert lost
    room.claims.abandon(lost)
    room.at(2000)
    rolled_back(room, ask())
    assert room.places() == {1: "claims", 2: "claims", 3: "ready"}
    assert due(room) == 0.0
    assert room.take() == [1, 2, 3]
    assert due(room) is None


def test_a_batch_that_nobody_received_is_free_at_once_as_if_never_sent() -> None:
    room = filled(2)
    lost = room.claim(1, lease_seconds=30.0)
    assert lost
    assert room.claims.held == {lost.claim: {1: "u-1"}}
    room.claims.abandon(lost)
    assert room.claims.held == {}
    assert due(room, waiting=False) == 0.0
    room.commit(room.claims)
    assert room.row(1)["sends"] == 0
    assert "first_sent_at_ms" not in room.row(1)
    assert due(room, waiting=False) is None
    assert room.take() == [1, 2]


def test_what_is_abandoned_during_a_commit_is_freed_by_the_next() -> None:
    room = filled(2)
    first, second = room.claim(1), room.claim(1)
    assert first
    assert second
    room.claims.abandon(first)
    transact(room.connection, [(room.claims, ())], None)
    room.claims.abandon(second)
    room.claims.committed((), (), ())
    assert due(room) == 0.0
    assert room.places() == {1: "ready", 2: "claims"}
    room.commit(room.claims)
    assert room.places() == {1: "ready", 2: "ready"}


def test_a_batch_whose_submitter_left_is_abandoned() -> None:
    room = filled(2)
    assert room.claim(1, wanted=False)
    assert room.claims.held == {}
    assert due(room) == 0.0
    assert room.take() == [1, 2]
    assert room.claim(wanted=False) is None


def test_the_rows_of_a_claim_are_held_with_their_owners() -> None:
    room = filled(3)
    one, two = room.claim(2), room.claim(2)
    assert room.claims.held == {
        one.claim: {1: "u-1", 2: "u-2"},  # type: ignore[union-attr]
        two.claim: {3: "u-3"},  # type: ignore[union-attr]
    }


@pytest.mark.parametrize("freed", ["by its lease", "as nobody received it"])
def test_an_express_row_that_is_free_again_is_looked_for(freed: str) -> None:
    room = filled(1)
    batch = room.claim(lease_seconds=0.5)
    assert batch
    assert not room.claims.picker.may_have_express
    if freed == "as nobody received it":
        room.claims.abandon(batch)
    room.at(1000).commit(room.claims)
    assert room.claims.picker.may_have_express


def test_a_start_frees_what_was_claimed_and_ends_delays_that_no_caller_asked_for() -> None:
    room = filled(5)
    batch = room.claim(lease_seconds=9999.0)
    assert batch
    room.put_back(batch, 1, 4, delay=60)
    room.settle(batch.claim, retry=[Retry(2, 60.0, 1, isolated=True)])
    room.connection.execute("UPDATE outbox_ready SET held = 1 WHERE seq = 4")
    room.start()
    assert room.recovered == 2
    assert [room.row(seq)["due_at_ms"] for seq in (1, 2, 3)] == [0, 0, 0]
    assert room.take(isolated=Isolated.LAST) == [1, 3, 5]
    assert room.take() == [2]
    assert room.places()[4] == "ready"
    assert room.row(4)["due_at_ms"] == START_MS + 60_000
    room.start()
    assert room.recovered == 4


def test_a_start_knows_whether_express_rows_wait() -> None:
    room = filled(2)
    assert not room.claims.picker.may_have_express
    for column, value in (("express", 1), ("isolated", 1), ("isolated", 0), ("due_at_ms", 5)):
        room.connection.execute(f"UPDATE outbox_ready SET {column} = {value} WHERE seq = 2")
        room.connection.execute("UPDATE outbox_ready SET held = 1")
        room.start()
        expected = (column, value) in (("express", 1), ("isolated", 0))
        assert room.claims.picker.may_have_express is expected


class Doubts:
    """Finds the rows unreadable that it is given; remembers which it was to doubt."""

    def __init__(self, bad: dict[int, str | None]) -> None:
        self.bad = bad
        self.doubted: list[tuple[list[int], type[Exception]]] = []

    def unreadable(self, seqs: Sequence[int]) -> dict[int, str | None]:
        return {seq: self.bad.pop(seq) for seq in seqs if seq in self.bad}

    def doubt(self, seqs: Sequence[int], error: Exception) -> None:
        self.doubted.append((list(seqs), type(error)))


def test_rows_that_can_not_be_read_are_set_aside_and_the_others_are_claimed() -> None:
    room = filled(4)
    room.claims._salvage = Doubts({1: "u-1", 3: None})  # type: ignore[assignment]
    counted: list[Any] = []
    room.recorder.count = lambda *of, **labels: counted.append((*of, labels))  # type: ignore[method-assign]
    with capture_logs() as logs:
        assert room.take() == [2, 4]
    assert room.places() == {1: "done", 2: "claims", 3: "done", 4: "claims"}
    assert room.row(1)["reason"] == "unreadable"
    assert logs == [{"event": "rows_unreadable", "log_level": "error", "rows": [1, 3]}]
    assert counted == [("dead", 2, {"reason": "unreadable"})]
    assert room.counts._pending == {"u-2": 1, "u-3": 1, "u-4": 1}
    with capture_logs() as logs:
        assert room.take() == []
    assert logs == []


def test_a_claim_that_fails_at_its_rows_doubts_them_and_takes_none() -> None:
    room = filled(2)
    doubts = room.claims._salvage = Doubts({})  # type: ignore[assignment]
    room.connection.execute("UPDATE outbox SET event_id = CAST(x'ff' AS TEXT) WHERE seq = 2")
    with pytest.raises(sqlite3.OperationalError):
        room.claim()
    assert doubts.doubted == [([1, 2], sqlite3.OperationalError)]
    room.connection.text_factory = bytes
    with pytest.raises(ValueError, match="utf-8"):
        room.claim()
    assert [seqs for seqs, _ in doubts.doubted] == [[1, 2]] * 2
    room.connection.text_factory = str
    assert room.places() == {1: "ready", 2: "ready"}


def test_a_claim_of_a_row_whose_event_is_gone_fails_and_says_so() -> None:
    room = Room()
    room.append(event(), event())
    room.connection.execute("DELETE FROM outbox WHERE seq = 1")
    with pytest.raises(sqlite3.DatabaseError, match="1 waiting row names an event"):
        room.claim()
