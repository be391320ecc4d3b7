"""When a claim that found nothing tries again on PostgreSQL."""

from __future__ import annotations

import pytest

from tests.support.postgres_room import Room, after


@pytest.mark.parametrize(
    ("plain", "isolated", "wanted", "seconds"),
    [
        ([], [], True, None),
        ([9, 7, 8], [], True, 4.0),
        ([9, 7, 8], [], False, 4.0),
        ([9], [6, 5], True, 2.0),
        ([4], [6, 5], True, 1.0),
        ([9], [5], False, 6.0),
        ([], [5, 6], True, 2.0),
        ([], [5], False, None),
        ([3], [], True, 0.0),
        ([2.5], [], True, -0.5),
    ],
)
def test_it_waits_for_the_delayed_row_that_is_due_first(
    room: Room, plain: list[float], isolated: list[float], seconds: float | None, *, wanted: bool
) -> None:
    room.at(3).wait(1)
    for at, due in enumerate([*plain, *isolated]):
        room.wait(at + 2, due=due, isolated=at >= len(plain))
    assert room.next_due(isolated=wanted) == (seconds, False)


def test_it_looks_and_counts_from_the_marks(room: Room) -> None:
    room.mark(due_from=after(20), isolated_from=after(10))
    room.wait(1, due=19)
    room.wait(2, due=9, isolated=True)
    assert room.next_due() == (None, False)
    room.wait(3, due=20)
    assert room.next_due() == (0.0, False)
    room.wait(4, due=10, isolated=True)
    assert room.next_due() == (-10.0, False)
    room.mark(due_from=after(0), isolated_from=after(30))
    assert room.next_due() == (-11.0, False)


@pytest.mark.parametrize(("window", "more_beyond"), [(4, True), (5, True), (6, False)])
def test_a_number_beyond_the_window_may_be_a_row(
    room: Room, window: int, *, more_beyond: bool
) -> None:
    room.mark(ready_from=10)
    room.run("SELECT setval('outbox_seq_seq', 15)")
    assert room.next_due(window=window) == (None, more_beyond)
