"""Which partitions of a PostgreSQL outbox are closed, dropped and spared."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.postgres.partitions import (
    CLOSE,
    DETACH,
    DROP,
    FIGURES,
    MAKE,
    PartitionPolicy,
    PostgresPartitions,
)

POLICY = PartitionPolicy(
    share=0.25, least_seconds=10.0, least_rows=100, most=3, most_staying=7, most_staying_bytes=8
)
OPEN = (1 << 36, None, 100, 25.0)
CLOSED = (0, 99, 100, 100.0)


class Pool:
    """Has partitions; detaches and drops as it is told, then has nothing to drop."""

    def __init__(self, *partitions: tuple[int, int | None, int, float]) -> None:
        self.partitions = list(partitions)
        self.detaches = True
        self.pages: list[int | None] = []
        self.asked: list[tuple[str, Any]] = []

    async def ask(self, statement: str, given: Any = None, **how: Any) -> list[Any]:
        assert how == ({"repeat_with": None} if statement == DROP else {})
        self.asked.append((statement, given))
        if statement == FIGURES:
            return self.partitions
        if statement == DETACH:
            return [(self.detaches,)]
        if statement == DROP:
            return [(self.pages.pop(0) if self.pages else None,)]
        return [(True,)]

    def steps(self) -> list[str]:
        """The statements but for the figures."""
        return [statement for statement, _ in self.asked if statement != FIGURES]


def partitions_of(pool: Any, policy: PartitionPolicy | None = POLICY) -> PostgresPartitions:
    return PostgresPartitions(pool, policy)


async def test_what_is_detached_is_dropped_page_by_page() -> None:
    pool = Pool()
    pool.pages = [5, 0, 3, None]
    assert await partitions_of(pool, None).drop_expired(100.0) == 8
    assert pool.asked[:4] == [(DROP, {"page": 50_000})] * 4
    assert pool.steps() == [DROP] * 4


async def test_a_closed_partition_whose_rows_are_old_is_detached_and_dropped() -> None:
    pool = Pool(CLOSED)
    pool.pages = [None, 4, 5, None]
    assert await partitions_of(pool).drop_expired(99.9999) == 9
    assert pool.steps() == [DROP, DETACH, DROP, DROP, DROP]
    given = {"older_than_ms": 99_999, "most_staying": 7, "most_staying_bytes": 8}
    assert (DETACH, given) in pool.asked


@pytest.mark.parametrize(("retention", "is_old"), [(99.0, True), (100.0, True), (100.1, False)])
async def test_a_partition_is_old_when_it_was_closed_so_long_ago(
    retention: float, *, is_old: bool
) -> None:
    pool = Pool(CLOSED)
    await partitions_of(pool).drop_expired(retention)
    assert pool.steps() == [DROP, *([DETACH, DROP] if is_old else [])]


async def test_a_partition_that_can_t_be_detached_keeps_the_younger_ones_too() -> None:
    """The oldest is the one that is asked for, and each question may hold up posts."""
    pool = Pool(CLOSED, (1 << 36, 199, 100, 100.0))
    pool.detaches = False
    assert await partitions_of(pool).drop_expired(50.0) == 0
    assert pool.steps() == [DROP, DETACH]


async def test_the_open_partition_is_closed_although_an_older_one_can_t_be_detached() -> None:
    pool = Pool(CLOSED, OPEN)
    pool.detaches = False
    assert await partitions_of(pool).drop_expired(100.0) == 0
    assert pool.steps() == [DROP, DETACH, MAKE, CLOSE, DROP]


async def test_each_old_partition_is_detached_and_dropped() -> None:
    pool = Pool(CLOSED, (1 << 36, 199, 100, 100.0))
    assert await partitions_of(pool).drop_expired(50.0) == 0
    assert pool.steps() == [DROP, DETACH, DROP, DETACH, DROP]


@pytest.mark.parametrize(
    ("others", "rows", "seconds", "retention", "is_closed"),
    [
        (0, 100, 25.0, 100.0, True),
        (2, 100, 25.0, 100.0, False),  # as many as there may be
        (1, 100, 25.0, 100.0, True),
        (0, 99, 25.0, 100.0, False),
        (0, 101, 25.0, 100.0, True),
        (0, 100, 24.9, 100.0, False),
        (0, 100, 25.1, 100.0, True),
        (0, 100, 25.0, 40.0, True),
        (0, 100, 25.0, 39.9, False),  # a share of 9.975 s
        (0, 100, 9.0, 0.0, False),
    ],
)
async def test_the_open_partition_is_closed_after_a_share_of_the_retention(
    others: int, rows: int, seconds: float, retention: float, *, is_closed: bool
) -> None:
    young = [(number, 99, 100, 1.0) for number in range(others)]
    pool = Pool(*young, (1 << 36, None, rows, seconds))
    assert await partitions_of(pool).drop_expired(retention) == 0
    assert pool.steps() == [DROP, *([MAKE, CLOSE] if is_closed else []), DROP]


async def test_an_open_partition_is_not_dropped() -> None:
    pool = Pool(OPEN)
    await partitions_of(pool).drop_expired(1.0)
    assert DETACH not in pool.steps()


@pytest.mark.parametrize(
    ("ages", "spared"),
    [
        ([], (0, 0)),
        ([149.9], (100, 900)),
        ([150.0], (0, 0)),
        ([200.0, 149.0, 10.0], (101, 900)),
        ([149.0, 10.0, 5.0], (100, 900)),
        ([200.0, 160.0], (0, 0)),
    ],
)
async def test_a_purge_leaves_alone_what_will_be_dropped(
    ages: list[float], spared: tuple[int, int]
) -> None:
    """Not what could not be dropped for long."""
    closed = [(100 + at, 99, 9, age) for at, age in enumerate(ages)]
    pool = Pool(*closed, (900, None, 9, 1.0))
    assert await partitions_of(pool).spared(100.0) == spared
