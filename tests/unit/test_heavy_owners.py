"""Which owners fill the queue on PostgreSQL, as known from one read of the counts to the next."""

from __future__ import annotations

from typing import Any

from service.outbox.fair_share import FairShare
from service.outbox.postgres.counts import READ_CHANGES, READ_FOLDED, PostgresCounts

SNAPSHOT = "9:9:"


class Pool:
    """Answers with the folded counts, and with the changes of one read after the other."""

    def __init__(self, folded: list[tuple[Any, ...]], *changes: list[tuple[Any, ...]]) -> None:
        self.folded = folded
        self.returns = 0
        self.changes = list(changes)

    async def run(self, statement: str, given: Any = None, **_: Any) -> list[tuple[Any, ...]]:
        if statement == READ_FOLDED:
            return self.folded
        assert statement == READ_CHANGES
        return self.changes.pop(0)


def changes(*, is_whole: bool = True, **by_owner: int) -> list[tuple[Any, ...]]:
    """What a read of the changes gives: how many rows of each owner wait more than before."""
    of_owners = [
        (7, True, owner, rows, 10 * rows, is_whole, SNAPSHOT) for owner, rows in by_owner.items()
    ]
    return of_owners or [(7, None, None, 0, 0, is_whole, SNAPSHOT)]


def counts_of(pool: Any) -> PostgresCounts:
    return PostgresCounts(pool, FairShare(heavy_rows=3))


async def test_an_owner_is_heavy_from_so_many_rows_on_until_it_has_fewer() -> None:
    pool = Pool([(5, "u-1", 3, 30), (5, "u-2", 2, 20)], changes(), changes(u_3=3), changes(u_3=-1))
    counts = counts_of(pool)
    seen = []
    for _ in range(3):
        await counts.read(1.0)
        seen.append(counts.heavy)
    assert seen == [{"u-1"}, {"u-1", "u_3"}, {"u-1"}]


async def test_a_heavy_owner_that_the_folded_counts_no_longer_name_is_heavy_no_more() -> None:
    """Other processes removed its rows, and the changes, since the last read."""
    reads = changes(), changes(is_whole=False), changes()
    pool = Pool([(5, "u-1", 3, 30), (5, "u-2", 4, 40)], *reads)
    counts = counts_of(pool)
    await counts.read(1.0)
    pool.folded = [(9, "u-2", 4, 40)]
    await counts.read(1.0)
    assert (counts.heavy, counts.of("u-1")) == ({"u-2"}, (0, 0))
