"""Where a look among the rows ends on PostgreSQL, and where a moment is."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.model import State
from service.outbox.postgres.positions import REACH, REACH_OF_OWNER, SEQ_AT, PostgresPositions
from service.outbox.reach import Reach
from tests.support.postgres_room import Room, after

SETTLED = {"attempts": 1, "sends": 1, "isolated": False}


def look(
    room: Room,
    state: State | None = State.PENDING,
    window: int = 1,
    before: int | None = None,
    *,
    owner: str | None = None,
    numbers: int = 100,
) -> tuple[Any, ...] | None:
    given = {"skipped": window - 1, "before_seq": before, "owner": owner, "numbers": numbers}
    rows = room.run(REACH_OF_OWNER if owner else REACH[state], given)
    assert len(rows) <= 1
    return rows[0] if rows else None


def gone(room: Room, *seqs: int, owner: str = "o") -> None:
    """Events that are not pending, accepted ten times their number after 1970."""
    for seq in seqs:
        one = {"event_id": f"e-{seq}", "name": "n", "owner": owner, "user_id": "u"}
        room.put("", seq=seq, accepted_at_ms=seq * 10, payload=b"x", **one)


def test_no_more_pending_rows_than_a_window_are_looked_at_at_once(room: Room) -> None:
    room.wait(3, 1, 2)
    assert look(room, window=4) is None
    assert look(room, window=3) == (1, 1, True)
    assert look(room, window=2) == (2, 2, False)
    assert look(room, window=1, before=1) is None


def test_pending_rows_of_every_lane_count(room: Room) -> None:
    room.wait(7)
    room.wait(8, due=5)
    room.wait(9, due=5, isolated=True)
    assert look(room, window=4) is None
    assert look(room, window=3) == (7, 7, True)
    room.mark(ready_from=8, due_from=after(5), isolated_from=after(5))
    assert look(room, window=3) is None
    assert look(room, window=2) == (8, 8, False)
    room.mark(due_from=after(6))
    assert look(room, window=2) is None
    assert look(room, window=1) == (9, 9, False)
    room.mark(isolated_from=after(6))
    assert look(room, window=1) is None


def test_new_rows_count_from_the_mark_on(room: Room) -> None:
    room.wait(20, 21)
    room.mark(ready_from=20)
    assert look(room, window=2) == (20, 20, True)
    room.mark(ready_from=21)
    assert look(room, window=2) is None


class RoomPool:
    """Asks the room."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def ask(self, statement: str, given: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._room.run(statement, given)


async def test_looks_go_through_the_pool(room: Room) -> None:
    room.wait(3, 1, 2)
    gone(room, 4, 6, owner="p")
    gone(room, 5)
    positions = PostgresPositions(RoomPool(room))
    assert await positions.reach(State.PENDING, 2) == Reach(2, 2)
    assert await positions.reach(State.PENDING, 1, 2) == Reach(1, 1, is_last=True)
    assert await positions.reach(State.PENDING, 4) is None
    assert await positions.reach(None, 2, 6) == Reach(4, 40)
    assert await positions.reach(None, 2, owner="p") == Reach(4, 40)
    assert await positions.reach(None, 1, 6, "p") == Reach(4, 40)
    assert await positions.seq_at(45) == 5


def test_a_window_of_pending_rows_ends_below_a_number(room: Room) -> None:
    room.wait(40, 10, 30, 20)
    assert look(room, window=2) == (30, 30, False)
    assert look(room, window=2, before=30) == (10, 10, True)
    assert look(room, window=2, before=31) == (20, 20, False)
    assert look(room, window=2, before=20) is None


def test_a_look_at_pending_rows_ends_after_so_many_numbers(room: Room) -> None:
    room.wait(10, 20)
    gone(room, 9, 50)
    assert look(room, window=2, numbers=15) == (36, 500, False)
    assert look(room, window=2, before=36, numbers=15) == (10, 10, False)
    assert look(room, window=2, before=36, numbers=11) == (10, 10, False)
    assert look(room, window=2, before=36, numbers=10) == (11, 20, False)
    assert look(room, window=1, before=10, numbers=15) is None


def test_few_pending_rows_are_looked_at_at_once_unless_new_ones_may_be_anywhere(
    room: Room,
) -> None:
    room.wait(10, due=5)
    gone(room, 5, 50)
    assert look(room, window=2, numbers=15) == (36, 500, False)
    room.mark(ready_from=35)
    assert look(room, window=2, numbers=15) == (36, 500, False)
    room.mark(ready_from=36)
    assert look(room, window=2, numbers=15) is None
    room.mark(ready_from=60)
    assert look(room, window=2, numbers=15) is None
    room.wait(70)
    assert look(room, window=3, numbers=15) is None
    assert look(room, window=2, numbers=15) == (56, 70, False)


def test_a_look_below_all_rows_is_the_last_one(room: Room) -> None:
    room.wait(20, 21, due=5)
    found = look(room, window=1, before=20)
    assert found is not None
    assert found[2]


@pytest.mark.parametrize("state", [State.DEAD, State.DELIVERED])
def test_a_window_of_settled_rows_ends_at_its_last_row(room: Room, state: State) -> None:
    gone(room, 1, 2, 3, 4)
    for seq in (2, 1, 4, 3):
        dead = (state is State.DEAD) == (seq != 2)
        room.put("done", seq=seq, settled_at_ms=0, dead=dead, **SETTLED)
    assert look(room, state) == (4, 40)
    assert look(room, state, 2) == (3, 30)
    assert look(room, state, 2, before=4) == (1, 10)
    assert look(room, state, 4) is None


def test_a_window_of_all_rows_ends_at_its_last_row(room: Room) -> None:
    gone(room, 3, 1, 2)
    assert look(room, None, 2) == (2, 20)
    assert look(room, None, 2, before=3) == (1, 10)
    assert look(room, None, 4) is None


def test_a_window_of_an_owner_ends_at_the_last_row_of_that_owner(room: Room) -> None:
    gone(room, 0, 2, 6, 4)
    gone(room, 3, 5, 7, owner="p")
    assert look(room, None, 2, owner="o") == (4, 40)
    assert look(room, None, 2, before=6, owner="o") == (2, 20)
    assert look(room, None, 4, owner="o") == (0, 0)
    assert look(room, None, 5, owner="o") is None
    assert look(room, None, owner="q") is None


def test_a_moment_is_found_among_numbers_with_gaps(room: Room) -> None:
    assert room.run(SEQ_AT, {"at_ms": 50}) == [(0,)]
    gone(room, 3, 4, 9, 1)
    for at_ms, seq in ((10, 1), (11, 2), (30, 3), (31, 4), (41, 5), (90, 5), (91, 10)):
        [(found,)] = room.run(SEQ_AT, {"at_ms": at_ms})
        below = {one for one in (1, 3, 4, 9) if one < found}
        assert below == {one for one in (1, 3, 4, 9) if one < seq}, at_ms
