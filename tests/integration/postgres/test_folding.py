"""Folding on PostgreSQL: which changes are folded, what they add up to, and where it is kept."""

from __future__ import annotations

import re
from typing import Any

import pytest

from service.outbox.postgres.fold import FOLD
from tests.support.postgres_room import Room, after

Held = dict[str, tuple[int, int, int]]
HEAVY = 20


@pytest.fixture(autouse=True)
def _limits(room: Room) -> None:
    room.run("UPDATE outbox_meta SET heavy_rows = %s", [HEAVY])


def change(room: Room, held: Held | None = None, **values: Any) -> None:
    """A change of owners' pending rows, stored rows and bytes, which is not new."""
    columns = zip(*(held or {}).values(), strict=True)
    arrays = dict(zip(("pending", "stored", "stored_bytes"), map(list, columns), strict=False))
    room.put("changes", changed_at=after(-99), owners=list(held or {}), **arrays, **values)


def fold(room: Room, safe_change: int | None = None) -> bool:
    """Fold up to this change, else all; whether it did."""
    if safe_change is None:
        [(safe_change,)] = room.run("SELECT max(no) FROM outbox_changes")
    room.mark(safe_change=safe_change)
    return bool(room.run(FOLD)[0][0])


def counts(room: Room) -> Held:
    """What is in the rows of owners."""
    return {
        row["owner"]: (row["pending"], row["stored"], row["stored_bytes"])
        for row in room.table("counts")
    }


def carried(room: Room) -> Held:
    """What waits to be added to them."""
    [row] = room.table("carried")
    names = ("pending", "stored", "stored_bytes")
    return dict(zip(row["owners"], zip(*(row[name] for name in names), strict=True), strict=True))


def meta(room: Room, *names: str) -> tuple[Any, ...]:
    [row] = room.table("meta")
    return tuple(row[name] for name in names)


def test_what_changed_is_added_up(room: Room) -> None:
    change(room, {"a": (1, 3, 5), "b": (2, 4, 6)}, delivered=7, dead=8, sent=9)
    assert fold(room)
    change(room, {"a": (3, 2, 300)}, delivered=70, dead=80, sent=90)
    change(room, delivered=-1, dead=-1, sent=-1)
    assert fold(room)
    assert meta(room, "pending", "stored_bytes", "delivered", "dead", "sent") == (
        6,
        311,
        76,
        87,
        98,
    )
    assert carried(room) == {"a": (4, 5, 305), "b": (2, 4, 6)}
    assert counts(room) == {}


def test_a_short_array_ends_in_zeros(room: Room) -> None:
    for column in ("pending", "stored", "stored_bytes"):
        room.put("changes", changed_at=after(-99), owners=[column], **{column: [1]})
    fold(room)
    alone = {"pending": (1, 0, 0), "stored": (0, 1, 0), "stored_bytes": (0, 0, 1)}
    assert carried(room) == alone
    room.run("UPDATE outbox_carried SET since = since - interval '61 minutes'")
    change(room)
    fold(room)
    assert (counts(room), carried(room)) == (alone, {})


def test_numbers_without_a_change_change_nothing(room: Room) -> None:
    change(room, {"a": (1, 1, 1)}, delivered=1, dead=2, sent=3)
    fold(room)
    before = room.table("carried")
    assert fold(room, 7)
    names = ("changes_folded", "pending", "stored_bytes", "delivered", "dead", "sent")
    assert meta(room, *names) == (7, 1, 1, 1, 2, 3)
    assert room.table("carried") == before


def test_only_safe_changes_are_folded_and_stay_until_the_next_fold(room: Room) -> None:
    for rows in (1, 2, 4):
        change(room, {"a": (rows, rows, rows)})
    for safe, added, left in ((1, 1, [1, 2, 3]), (2, 3, [2, 3]), (3, 7, [3])):
        assert fold(room, safe)
        assert carried(room) == {"a": (added, added, added)}
        assert [row["no"] for row in room.table("changes")] == left
    assert meta(room, "changes_folded", "changes_trimmed") == (3, 2)


@pytest.mark.parametrize("safe", [1, 2])
def test_what_is_folded_is_not_folded_again(room: Room, safe: int) -> None:
    for _ in range(2):
        change(room, {"a": (1, 1, 1)}, sent=1)
    fold(room)
    assert not fold(room, safe)
    assert meta(room, "changes_folded", "changes_trimmed", "sent") == (2, 0, 2)
    assert carried(room) == {"a": (2, 2, 2)}
    assert len(room.table("changes")) == 2


def test_an_owner_whose_counts_are_as_before_is_not_carried(room: Room) -> None:
    change(room, {"a": (5, 5, 5), "b": (1, 1, 1)})
    fold(room)
    change(room, {"a": (-5, -5, -5)})
    fold(room)
    assert carried(room) == {"b": (1, 1, 1)}


def given(room: Room, **pending: int) -> None:
    """Owners with so many rows, among the others."""
    for owner, rows in {**pending, "other": 25}.items():
        room.put("counts", owner=owner, pending=rows, stored=rows, stored_bytes=rows)


@pytest.mark.parametrize(
    ("before", "by", "is_written"),
    [
        (0, 9, False),
        (0, 10, True),
        (30, -9, False),
        (60, -10, True),
        (60, 9, False),
        (5, -1, False),
        (19, 1, True),
        (18, 1, False),
        (20, -1, True),
        (20, 1, False),
        (21, -1, False),
        (28, -9, True),
        (11, 9, True),
    ],
)
def test_an_owners_row_is_written_where_its_count_changed_much_or_decides(
    room: Room, before: int, by: int, *, is_written: bool
) -> None:
    """By half of what makes an owner one who fills the queue, or across that number."""
    given(room, **({"a": before} if before else {}))
    change(room, {"a": (by, by, by), "b": (1, 1, 1)})
    fold(room)
    row = before + by if is_written else before
    assert counts(room) == {"other": (25, 25, 25), **({"a": (row, row, row)} if row else {})}
    assert carried(room) == {"b": (1, 1, 1), **({} if is_written else {"a": (by, by, by)})}


def test_a_row_without_a_count_goes(room: Room) -> None:
    given(room, a=30, b=30)
    change(room, {"a": (-30, -30, -30), "b": (-30, -30, -29)})
    fold(room)
    assert counts(room) == {"b": (0, 0, 1), "other": (25, 25, 25)}
    assert carried(room) == {}


def test_carried_rows_count_with_what_changes(room: Room) -> None:
    for _ in range(3):
        change(room, {"a": (4, 5, 6)})
        fold(room)
    assert counts(room) == {"a": (12, 15, 18)}
    assert carried(room) == {}


@pytest.mark.parametrize(("minutes", "is_written"), [(59, False), (61, True)])
@pytest.mark.parametrize("changed", [False, True])
def test_after_an_hour_all_owners_are_written(
    room: Room, minutes: int, *, changed: bool, is_written: bool
) -> None:
    given(room, a=5)
    change(room, {"a": (1, 2, 3), "b": (1, 1, 1)})
    fold(room)
    room.run(f"UPDATE outbox_carried SET since = since - interval '{minutes} minutes'")
    [before] = room.table("carried")
    change(room, {"b": (1, 1, 1)} if changed else None)
    fold(room)
    [later] = room.table("carried")
    rows = 2 if changed else 1
    all_b = {"b": (rows, rows, rows)}
    if is_written:
        assert counts(room) == {"a": (6, 7, 8), "other": (25, 25, 25), **all_b}
        assert carried(room) == {}
        assert later["since"] > before["since"]
    else:
        assert counts(room) == {"a": (5, 5, 5), "other": (25, 25, 25)}
        assert carried(room) == {"a": (1, 2, 3), **all_b}
        assert later["since"] == before["since"]


@pytest.mark.parametrize(("owners", "written"), [(10_000, 0), (10_001, 10_001)])
def test_of_too_many_owners_all_are_written(room: Room, owners: int, written: int) -> None:
    change(room, {f"o-{number}": (1, 1, 1) for number in range(owners)})
    fold(room)
    assert len(counts(room)) == written
    assert len(carried(room)) == owners - written


def test_no_owner_is_compared_with_every_other(room: Room) -> None:
    [(body,)] = room.run("SELECT prosrc FROM pg_proc WHERE proname = 'outbox_fold'")
    statement = body[body.index("WITH folded") : body.rindex("RETURN true")]
    with_values = re.sub(r"\bmeta\.\w+|fold_to|trim_to", "1", statement)
    plan = "\n".join(line for (line,) in room.run(f"EXPLAIN {with_values}"))
    assert "Hash Anti Join" in plan
    assert "(SubPlan" not in plan  # as opposed to a hashed one


def fold_some(room: Room, safe: int, most: int) -> None:
    assert room.run("SELECT outbox_fold(%s, %s)", [safe, most]) == [(True,)]


def numbers(room: Room) -> list[int]:
    return sorted(row["no"] for row in room.table("changes"))


def test_a_fold_may_be_of_some_numbers_only(room: Room) -> None:
    for _ in range(5):
        change(room, {"a": (1, 1, 1)})
    for folded, safe in ((2, 5), (4, 5), (5, 5)):
        fold_some(room, safe, 2)
        assert meta(room, "changes_folded", "pending") == (folded, folded)
    assert numbers(room) == [5]


def test_a_fold_of_some_numbers_removes_as_many(room: Room) -> None:
    for _ in range(6):
        change(room, {"a": (1, 1, 1)})
    fold(room, 5)
    fold_some(room, 6, 2)
    assert numbers(room) == [3, 4, 5, 6]
    assert meta(room, "changes_folded", "changes_trimmed") == (6, 2)


@pytest.mark.parametrize(("age", "left"), [(15.0, [2, 3, 4]), (20.5, [4])])
def test_what_a_service_may_not_have_read_stays(room: Room, age: float, left: list[int]) -> None:
    """A change is read once a second, and not removed for 20 s."""
    for _ in range(4):
        change(room, {"a": (1, 1, 1)})
    fold(room, 3)
    for number in (3, 2):
        room.run(
            "UPDATE outbox_changes SET changed_at = pg_catalog.clock_timestamp()"
            " - make_interval(secs => %s) WHERE no = %s",
            [age, number],
        )
    fold(room, 4)
    assert numbers(room) == left
