"""Which rows a claim on an SQLite outbox takes, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.model import Isolated, Retry
from tests.support.sqlite_room import Room
from tests.support.storage import event

SIZE = 100


def row(owner: str = "u-1", size: int = SIZE) -> Any:
    return event(owner, size=size)


def filled(count: int, *, sizes: tuple[int, ...] = (), **given_to_room: Any) -> Room:
    room = Room(**given_to_room)
    for size in sizes or (SIZE,) * count:
        room.append(row(size=size))
    return room


def put_back(room: Room, **delays: tuple[float, bool]) -> Room:
    """Claim all rows, and put each back with a delay, isolated or not; `_1` is the first."""
    batch = room.claim()
    assert batch
    given = {int(name[1:]): how for name, how in delays.items()}
    again = [
        Retry(seq, *(given.get(seq, (0.0, False))[:1]), 0, isolated=given.get(seq, (0, False))[1])
        for seq in room.places()
    ]
    assert room.settle(batch.claim, retry=again) == 0
    return room


@pytest.mark.parametrize(
    ("max_events", "max_bytes", "taken"),
    [
        (2, 1000, [1, 2]),
        (10, 1000, [1, 2, 3, 4]),
        (4, 400, [1, 2, 3, 4]),
        (10, 400, [1, 2, 3, 4]),
        (10, 399, [1, 2, 3]),
        (10, 200, [1, 2]),
        (10, 199, [1]),
        (10, 50, [1]),
        (1, 50, [1]),
        (2, 150, [1]),
    ],
)
def test_the_oldest_rows_are_taken_up_to_both_bounds_and_one_always(
    max_events: int, max_bytes: int, taken: list[int]
) -> None:
    assert filled(4).take(max_events, max_bytes=max_bytes) == taken


def test_rows_whose_delay_is_over_come_first_by_the_end_of_their_delay() -> None:
    def room() -> Room:
        return put_back(filled(6), _2=(5, False), _4=(0.5, False), _6=(100, False))

    assert room().at(499).take(1) == [1]
    assert room().at(500).take(1) == [4]
    late = room().at(5000)
    assert [late.take(1) for _ in range(3)] == [[4], [2], [1]]
    assert room().at(5000).take(3) == [1, 2, 4]
    assert room().at(5000).take() == [1, 2, 3, 4, 5]
    tied = put_back(filled(3), _1=(5, False), _2=(4, False), _3=(4, False)).at(9000)
    assert [tied.take(1) for _ in range(3)] == [[2], [3], [1]]


@pytest.mark.parametrize(
    ("count", "request_", "taken"),
    [
        (10, {"max_events": 4, "fresh_share": 0.5}, [1, 2, 9, 10]),
        (10, {"max_events": 4, "fresh_share": 0.25}, [1, 2, 3, 10]),
        (10, {"max_events": 4, "fresh_share": 1.0}, [7, 8, 9, 10]),
        (10, {"max_events": 1, "fresh_share": 0.5}, [1]),
        (5, {"max_events": 4, "fresh_share": 0.5}, [1, 2, 4, 5]),
        (4, {"max_events": 4, "fresh_share": 0.5}, [1, 2, 3, 4]),
        (2, {"max_events": 2, "fresh_share": 1.0}, [1, 2]),
        (10, {"max_events": 6, "fresh_share": 0.5, "max_bytes": 300}, [1, 10]),
        (4, {"max_events": 4, "fresh_share": 0.5, "max_bytes": 250}, [1, 4]),
        (10, {"max_events": 6, "fresh_share": 0.5, "max_bytes": 400}, [1, 2, 9, 10]),
        (10, {"max_events": 6, "fresh_share": 0.25, "max_bytes": 300}, [1, 2, 3]),
        (10, {"max_events": 6, "fresh_share": 0.5, "max_bytes": 50}, [1]),
        (10, {"max_events": 6, "fresh_share": 1.0, "max_bytes": 250}, [9, 10]),
        (10, {"max_events": 6, "fresh_share": 1.0, "max_bytes": 50}, [10]),
    ],
)
def test_the_newest_rows_have_their_share_of_rows_and_bytes(
    count: int, request_: dict[str, Any], taken: list[int]
) -> None:
    assert filled(count).take(**request_) == taken


def test_the_newest_rows_share_has_no_row_that_is_isolated_or_delayed() -> None:
    room = filled(6)
    room.connection.execute("UPDATE outbox_ready SET isolated = 1 WHERE seq = 6")
    room.connection.execute("UPDATE outbox_ready SET due_at_ms = 9000000 WHERE seq = 5")
    assert room.take(2, fresh_share=0.5, isolated=Isolated.NONE) == [1, 4]


def test_the_newest_share_is_of_fresh_rows_and_a_share_of_one_is_of_all() -> None:
    room = filled(6)
    room.start()
    assert room.take(4, fresh_share=0.5) == [1, 2, 3, 4]
    assert room.take(1, fresh_share=1.0) == [6]
    room.append(row())
    room.append(row())
    assert room.take(2, fresh_share=0.5) == [5, 8]


def test_rows_stay_fresh_for_one_or_two_minutes() -> None:
    room, wanted = Room(), {"fresh_share": 0.5, "lease_seconds": 9999.0}
    taken = []
    for minute in range(4):
        for _ in range(4):
            room.at(minute * 60_000 - 1 if minute else 0).append(row())
        taken.append(room.at(minute * 60_000).take(2, **wanted))
    assert taken == [[1, 4], [2, 8], [3, 12], [5, 16]]
    assert room.at(240_000 - 1).take(2, **wanted) == [6, 15]
    assert room.at(240_000).take(2, **wanted) == [7, 9]


def flooded(size: int = SIZE) -> Room:
    """Ten rows of one owner, and then three of another's of this size."""
    room = Room(heavy_rows=5)
    for _ in range(10):
        room.append(row("flood"))
    for _ in range(3):
        room.append(row("ada", size))
    return room


@pytest.mark.parametrize(
    ("size", "request_", "taken"),
    [
        (SIZE, {"max_events": 4}, [[1, 2, 11, 12], [3, 4, 5, 13], [6, 7, 8, 9]]),
        (SIZE, {"max_events": 1}, [[1], [11], [2], [12], [3]]),
        (SIZE, {"max_events": 10, "max_bytes": 400}, [[1, 2, 11, 12]]),
        (300, {"max_events": 10, "max_bytes": 400}, [[1, 2, 3, 4], [11], [5, 6, 7, 8], [12]]),
    ],
)
def test_who_has_few_rows_has_half_of_the_rows_and_of_the_bytes_beside_a_flood(
    size: int, request_: dict[str, Any], taken: list[list[int]]
) -> None:
    room = flooded(size)
    assert [room.take(**request_) for _ in taken] == taken


def test_after_a_flood_rows_come_in_their_order_again() -> None:
    room = Room(heavy_rows=5)
    for owner in ("first", "first", *["flood"] * 10):
        room.append(row(owner))
    batch = room.claim()
    assert batch
    again = [Retry(seq, 0, 0, isolated=False) for seq in (1, 2)]
    assert room.settle(batch.claim, delivered=[*range(3, 13)], retry=again) == 0
    room.append(row("ada"))
    assert room.take(2) == [1, 2]


@pytest.mark.parametrize("ends", ["by its lease", "unseen", "for another try"])
def test_few_rows_that_come_back_from_a_claim_have_their_share_again(ends: str) -> None:
    room = flooded()
    room.take(4)
    late = room.claim(4, lease_seconds=1.0)
    assert late
    assert room.take(4) == [6, 7, 8, 9]
    if ends == "unseen":
        room.claims.abandon(late)
    if ends == "for another try":
        room.put_back(late, 3, 4, 5, 13)
    taken = [room.at(1000).take(1), room.take(2)]
    assert sorted(seq for seqs in taken for seq in seqs) == [3, 4, 13]


def test_a_lease_is_over_as_soon_as_it_ends() -> None:
    room = filled(1)
    assert room.take(lease_seconds=0.3) == [1]
    assert room.at(299).take() == []
    assert room.at(300).take() == [1]


def test_a_batch_that_nobody_received_is_released_once() -> None:
    room = filled(1)
    room.claim(wanted=False)
    assert room.claims.due_in_seconds(waiting=False) == 0
    assert room.take(lease_seconds=1.0) == [1]
    assert room.claims.due_in_seconds(waiting=False) is None
