"""How many bytes a claim takes on PostgreSQL, and what it takes of rows whose owners have few."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.model import Isolated
from tests.support.postgres_room import Room, after

# Bytes of the rows in the order of their seqs; the last of them are the newest.
SIZES: list[tuple[list[int], dict[str, Any], list[int]]] = [
    ([40, 60, 1], {}, [1, 2]),
    ([40, 61, 1], {}, [1]),
    ([101, 1], {}, [1]),
    ([100, 1], {}, [1]),
    ([50, 50, 50, 50], {"fresh_share": 0.5}, [1, 4]),
    ([50, 50, 51, 50], {"fresh_share": 0.5}, [1, 4]),
    ([25, 25, 1, 25, 25], {"fresh_share": 0.5}, [1, 2, 4, 5]),
    ([25, 25, 1, 26, 25], {"fresh_share": 0.5}, [1, 2, 5]),
    ([30, 30, 30, 30], {"fresh_share": 0.5}, [1, 4]),
    ([60, 9, 40, 40], {"fresh_share": 0.5}, [1, 4]),  # the first takes ten of the newest
    ([60, 9, 40, 41], {"fresh_share": 0.5}, [1]),
    ([60, 9, 20, 20], {"fresh_share": 0.5}, [1, 3, 4]),
    ([100, 9, 9, 9], {"fresh_share": 0.5}, [1]),
    ([120, 9, 9, 9], {"fresh_share": 0.5}, [1]),
    ([9, 150, 60], {"fresh_share": 0.5}, [1]),
    ([9, 60, 150], {"fresh_share": 1.0}, [3]),
    ([9, 50, 50], {"fresh_share": 1.0}, [2, 3]),
    ([9, 51, 50], {"fresh_share": 1.0}, [3]),
]


@pytest.mark.parametrize("express", [False, True])
@pytest.mark.parametrize(("sizes", "changes", "taken"), SIZES)
def test_a_claim_stays_within_its_bytes_and_one_row_always_passes(
    room: Room, sizes: list[int], changes: dict[str, Any], taken: list[int], *, express: bool
) -> None:
    for at in reversed(range(len(sizes))):
        room.wait(at + 1, size=sizes[at])
    given = {"max_bytes": 100, **changes, "express": express, "turn": express}
    assert room.take(4, **given) == taken


def crowd(room: Room, old: list[int], quick: list[int], newest: list[int]) -> None:
    """Rows of these bytes: of a flood from 1, express ones from 11, the flood's newest from 21."""
    for first, sizes in ((1, old), (11, quick), (21, newest)):
        for at in reversed(range(len(sizes))):
            room.wait(first + at, size=sizes[at], express=first == 11)


@pytest.mark.parametrize(
    ("old", "quick", "newest", "changes", "taken"),
    [
        ([1] * 9, [1] * 9, [], {}, [1, 2, 3, 11, 12, 13]),
        ([1] * 9, [1], [], {}, [1, 2, 3, 4, 5, 11]),
        ([1], [1] * 9, [], {}, [1, 11, 12, 13, 14, 15]),
        ([], [1] * 9, [], {}, [11, 12, 13, 14, 15, 16]),
        ([1] * 9, [1] * 9, [1] * 9, {"fresh_share": 0.5}, [11, 12, 13, 27, 28, 29]),
        ([1] * 9, [1] * 9, [1] * 9, {"fresh_share": 1.0}, [24, 25, 26, 27, 28, 29]),
        # The express rows have half of the bytes at most.
        ([20] * 9, [25, 25, 1], [], {}, [1, 2, 11, 12]),
        ([20] * 9, [25, 26, 1], [], {}, [1, 2, 3, 11]),
        ([20] * 9, [51, 1], [], {}, [1, 2, 3, 4, 5]),
        ([20] * 9, [51, 1], [], {"turn": True}, [1, 2, 11]),
        ([20] * 9, [100, 1], [], {"turn": True}, [11]),
        ([20] * 9, [101], [], {"turn": True}, [11]),
        ([20] * 9, [80], [], {"turn": True}, [1, 11]),
        ([20] * 9, [81], [], {"turn": True}, [11]),
        # The oldest row and the express rows do not fit together: one of the two has its turn.
        ([60], [40], [], {}, [1, 11]),
        ([61], [40], [], {}, [1]),
        ([61], [40], [], {"turn": True}, [11]),
        ([60, 1], [40], [], {"turn": True}, [1, 11]),
        ([101], [1], [], {}, [1]),
        ([101], [1], [], {"turn": True}, [11]),
        ([100], [1], [], {}, [1]),
        # What one of the two takes beyond its bytes is the newest ones'.
        ([60], [], [9, 40, 1], {"fresh_share": 0.5}, [1, 23]),
        ([60], [], [9, 39, 1], {"fresh_share": 0.5}, [1, 22, 23]),
        ([1], [60], [9, 40, 1], {"fresh_share": 0.5, "turn": True}, [11, 23]),
        ([1], [60], [9, 39, 1], {"fresh_share": 0.5, "turn": True}, [11, 22, 23]),
        ([], [60], [90], {"fresh_share": 0.5, "turn": True}, [11]),
        ([], [25], [51], {"fresh_share": 0.5}, [11]),
        ([], [], [51, 51], {"fresh_share": 0.5}, [22]),
    ],
)
def test_express_rows_have_half_of_a_claim(
    room: Room,
    old: list[int],
    quick: list[int],
    newest: list[int],
    changes: dict[str, Any],
    taken: list[int],
) -> None:
    crowd(room, old, quick, newest)
    assert room.take(6, **{"max_bytes": 100, **changes, "express": True}) == taken


def test_express_rows_come_in_the_order_of_both_lanes(room: Room) -> None:
    for seq, due in ((22, -1.0), (24, -3.0), (28, -2.0)):
        room.wait(seq, due=due, express=True)
    room.wait(27, 23, 25, express=True)
    room.wait(*range(1, 10))
    assert room.take(4, express=True) == [1, 2, 23, 24]
    assert room.take(4, express=True, claim="d") == [3, 4, 22, 25]
    assert room.take(4, express=True, claim="e") == [5, 6, 27, 28]


def test_a_row_is_express_or_among_the_oldest(room: Room) -> None:
    room.wait(1, 2, 3, express=True)
    assert room.take(2, express=True) == [1, 2]
    room.wait(4, 5)
    assert room.take(4, express=True, claim="d") == [3, 4, 5]


def test_a_row_is_express_or_among_the_newest(room: Room) -> None:
    room.wait(1, 2, 3)
    room.wait(8, 9, express=True)
    assert room.take(4, express=True, fresh_share=0.5) == [1, 2, 8, 9]


@pytest.mark.parametrize(("due", "taken"), [(10.0, [1, 9]), (10.001, [1, 2])])
def test_an_express_row_has_its_share_when_it_is_due(
    room: Room, due: float, taken: list[int]
) -> None:
    room.at(10).wait(1, 2, 3)
    room.wait(9, due=due, express=True)
    assert room.take(2, express=True) == taken


def test_express_rows_are_searched_from_the_marks(room: Room) -> None:
    room.at(100).mark(ready_from=10, due_from=after(20))
    room.wait(9, 10, 11, express=True)
    room.wait(1, due=19.999, express=True)
    room.wait(2, due=20, express=True)
    assert room.take(8, express=True, window=1) == [2, 10, 11]
    assert room.take(8, express=True, claim="d") == []


def test_express_rows_at_the_marks_have_their_share(room: Room) -> None:
    room.at(100).mark(ready_from=10, due_from=after(20))
    room.wait(1, 2, due=30)
    room.wait(10, express=True)
    assert room.take(2, express=True) == [1, 10]
    room.wait(11, 12, 13)
    room.wait(19, due=20, express=True)
    assert room.take(3, express=True, claim="d") == [2, 11, 19]


def test_only_rows_that_are_express_and_not_isolated_have_their_share(room: Room) -> None:
    room.wait(1, 2)
    room.wait(3, due=0, express=True, isolated=True)
    room.wait(5, due=0)
    assert room.take(2, express=True, isolated=Isolated.NONE) == [1, 2]
    room.wait(6)
    room.wait(7, express=True)
    room.wait(8, due=0, express=True)
    assert room.take(express=True, isolated=Isolated.FIRST, claim="d") == [3]
    assert room.take(2, express=True, turn=True, claim="e") == [5, 7]
