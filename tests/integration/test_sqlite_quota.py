"""The counts of what an SQLite outbox holds: beside a plain list of the rows, over any changes."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from service.errors import OutboxFullError, TooManyPendingError
from service.outbox.limits import FairShare, Limits
from service.outbox.sqlite.state import (
    BytesCount,
    Freed,
    StoredCounts,
)
from tests.support.sqlite_room import Room
from tests.support.storage import event

HEAVY = 3
NO_LIMITS = Limits(10_000, 10_000)
CHANGES = ("enter", "undo", "left", "left", "returned", "bytes", "free")


class Model:
    """Rows and bytes by owner, counted anew each time."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def has_fair_share(self, owner: str) -> bool:
        heavy = sum(count for count in self.rows.values() if count >= HEAVY)
        return self.rows[owner] < HEAVY and heavy * 2 > self.rows.total()


def change(counts: StoredCounts, model: Model, what: str, owner: str, rows: int) -> None:
    """One change; what takes rows away takes no more than there are."""
    held, size = min(rows, model.rows[owner]), rows * 10
    stored = min(size, model.bytes[owner])
    if what == "enter":
        assert counts.enter(owner, rows, size) is model.has_fair_share(owner)
        model.rows[owner] += rows
        model.bytes[owner] += size
    elif what == "returned":
        counts.returned({owner: rows, "zoe": 0})
        model.rows[owner] += rows
    elif what == "bytes":
        counts.add_bytes({owner: size})
        model.bytes[owner] += size
    elif what == "left" and held == 1:
        counts.left(owner)
        model.rows[owner] -= 1
    elif what == "left":
        counts.left(owner, held)
        model.rows[owner] -= held
    else:
        if what == "undo":
            counts.undo(owner, held, stored)
        else:
            counts.free(Freed({owner: held}, {owner: stored}))
        model.rows[owner] -= held
        model.bytes[owner] -= stored


@pytest.mark.parametrize("seed", range(3))
def test_the_counts_are_those_of_the_rows_over_any_changes(seed: int) -> None:
    chance, crowded = random.Random(seed), 0
    counts, model = StoredCounts(NO_LIMITS, FairShare(HEAVY)), Model()
    for _ in range(600):
        owner = chance.choice(["ada", "bob", "kim", "lea", "max"])
        crowded += model.has_fair_share(owner)
        change(counts, model, chance.choice(CHANGES), owner, chance.randint(1, 4))
        assert counts._pending == +model.rows
        assert counts._bytes == +model.bytes
        assert (counts.total, counts.total_bytes) == (model.rows.total(), model.bytes.total())
        assert counts._noisy_total == sum(n for n in model.rows.values() if n >= HEAVY)
    assert 20 < crowded < 580


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        (Limits(9, 2), TooManyPendingError),
        (Limits(9, 3), None),
        (Limits(4, 9), OutboxFullError),
        (Limits(5, 9), None),
        (Limits(9, 9, None, 29), TooManyPendingError),
        (Limits(9, 9, None, 30), None),
        (Limits(9, 9, 49, None), OutboxFullError),
        (Limits(9, 9, 50, None), None),
    ],
)
def test_a_limit_is_kept_to_the_row_and_to_the_byte(
    limits: Limits, refused: type[Exception] | None
) -> None:
    counts = StoredCounts(limits, FairShare(HEAVY))
    counts.enter("ada", 2, 20)
    counts.enter("bob", 2, 20)
    if refused is None:
        counts.check("ada", 1, 10)
    else:
        with pytest.raises(refused):
            counts.check("ada", 1, 10)


def test_who_has_nothing_is_checked_from_zero() -> None:
    counts = StoredCounts(Limits(1, 1, 10, 10), FairShare(HEAVY))
    counts.check("ada", 1, 10)
    counts.enter("ada", 1, 10)
    assert (counts.total, counts.total_bytes) == (1, 10)


def test_rows_that_came_after_the_start_are_not_counted_again() -> None:
    room = Room()
    room.append(event("ada", size=100))
    pages = BytesCount(page_rows=2)
    pages.begin(room.connection)
    room.append(event("bob", size=100))
    assert pages.count_page(room.connection) == {"ada": 100}
    assert pages.is_done
