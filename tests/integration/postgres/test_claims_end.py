"""Claims that end without a settlement on PostgreSQL: which end, and what their rows keep."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.postgres_room import SIZE, START_MS, Room, after
from tests.support.storage import event

WAITS = {"held": False, "attempts": 0, "payload_bytes": SIZE, "isolated": False}


def test_a_claim_that_ends_makes_its_rows_due_as_if_sent(room: Room) -> None:
    room.append(event(), event(), event())
    room.take(2)
    room.at(5)
    assert room.release("c") == 2
    back = {**WAITS, "due_at": 5.0, "sends": 1, "first_sent_at_ms": START_MS}
    assert room.rows("ready") == {1: back, 2: back, 3: {**WAITS, "sends": 0}}
    assert room.table("claims") == []


def test_a_claim_that_nobody_received_was_not_sent(room: Room) -> None:
    room.append(event())
    room.take()
    assert room.release("c", sent=False) == 1
    assert room.rows("ready") == {1: {**WAITS, "due_at": 0.0, "sends": 0}}


@pytest.mark.parametrize(("sent", "sends"), [(False, 5), (True, 6)])
def test_a_row_keeps_its_past_when_its_claim_ends(room: Room, *, sent: bool, sends: int) -> None:
    room.append(event(), event())
    room.take()
    room.run(
        "UPDATE outbox_claims SET attempts = '{2,0}', sends = '{5,0}', isolated = '{t,f}',"
        " first_sent_at_ms = '{77,NULL}', express = '{1}'"
    )
    room.release("c", sent=sent)
    past = {"attempts": 2, "sends": sends, "isolated": True, "first_sent_at_ms": 77}
    rows = room.rows("ready")
    assert rows[1] == {**WAITS, **past, "due_at": 0.0, "express_seq": 1}
    assert rows[2]["sends"] == sends - 5
    assert "express_seq" not in rows[2]


def test_only_the_named_claims_end(room: Room) -> None:
    room.append(*(event() for _ in range(4)))
    for at in range(4):
        room.take(1, claim=f"c-{at}")
    assert room.release("c-1", "c-3", "nobody") == 2
    assert set(room.rows("ready")) == {2, 4}
    assert room.release("c-1", "c-3") == 0
    assert room.release() == 0
    assert {one["claim"] for one in room.table("claims")} == {"c-0", "c-2"}


@pytest.mark.parametrize("how", ["release", "expire"])
@pytest.mark.parametrize("lane", ["due_from", "isolated_from"])
def test_rows_come_back_behind_the_marks(room: Room, lane: str, how: str) -> None:
    room.append(event())
    room.take()
    room.at(40).mark(**{lane: after(100)})
    assert (room.release("c") if how == "release" else room.expire()) == 1
    assert room.rows("ready")[1]["due_at"] == 100.0


def leased(room: Room, *seconds: float) -> None:
    """Claims of a row each, with leases that end so many seconds after the start."""
    for at, one in enumerate(seconds):
        room.append(event())
        room.take(1, claim=f"{one}", lease_seconds=one)
        assert room.table("claims")[at]["lease_until"] == one


@pytest.mark.parametrize(
    ("now", "ended"), [(9.999, []), (10.0, [1]), (10.001, [1]), (20.0, [1, 2])]
)
def test_a_lease_ends_at_its_time(room: Room, now: float, ended: list[int]) -> None:
    leased(room, 10, 20, 30)
    room.at(now)
    assert room.expire() == len(ended)
    assert sorted(room.rows("ready")) == ended
    assert {one["sends"] for one in room.rows("ready").values()} <= {1}
    assert room.expire() == 0


def test_leases_are_searched_from_their_mark(room: Room) -> None:
    leased(room, 10, 20, 30)
    room.at(40).mark(lease_from=after(20))
    assert room.expire() == 2
    assert sorted(room.rows("ready")) == [2, 3]


def test_no_mark_of_leases_is_later_than_their_end(room: Room) -> None:
    """The clock was set back: a lease behind the mark is over all the same."""
    leased(room, 50, 51)
    room.mark(lease_from=after(50))
    assert room.expire() == 1
    assert sorted(room.rows("ready")) == [1]


def test_the_end_of_a_claim_changes_no_counts(room: Room) -> None:
    room.append(event(), event())
    before: list[dict[str, Any]] = room.table("changes")
    room.take(1)
    room.take(1, claim="d")
    room.release("c")
    room.at(60).expire()
    assert room.table("changes") == before
