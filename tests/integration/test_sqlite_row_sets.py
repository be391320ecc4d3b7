"""Rows as a parameter: whatever their gaps and order, a statement meets these and no other."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator

import pytest

from service.outbox.sqlite.row_set import OfRows, RowSet

TAKE = OfRows.taking("INSERT INTO taken (seq, n) SELECT seq, ?2 FROM {rows}", "rows")
DROP = OfRows.deleting("DELETE FROM rows WHERE {which} AND seq <> ?2")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    tables = "CREATE TABLE rows (seq INTEGER PRIMARY KEY); CREATE TABLE taken (seq, n)"
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        made.executescript(tables)
        made.executemany("INSERT INTO rows VALUES (?)", [(seq,) for seq in range(1, 13)])
        yield made


def sets_of_rows() -> list[list[int]]:
    chance = random.Random(1)
    some = [sorted(chance.sample(range(1, 13), count)) for count in range(1, 13) for _ in range(4)]
    turned = [chance.sample(range(1, 13), count) for count in (2, 3, 5, 9) for _ in range(4)]
    return [[7], [1, 12], [5, 4], [1, 2, 3], [3, 2, 1], *some, *turned]


def seqs(connection: sqlite3.Connection, table: str) -> list[int]:
    return [seq for (seq,) in connection.execute(f"SELECT seq FROM {table} ORDER BY seq")]


@pytest.mark.parametrize("rows", sets_of_rows(), ids=str)
def test_a_statement_takes_and_deletes_these_rows_once(
    connection: sqlite3.Connection, rows: list[int]
) -> None:
    found = RowSet.of(rows)
    assert found.execute(connection, TAKE, "n").rowcount == len(rows)
    assert seqs(connection, "taken") == sorted(rows)
    assert {n for (n,) in connection.execute("SELECT n FROM taken")} == {"n"}
    found.delete(connection, DROP, 0)
    assert seqs(connection, "rows") == sorted(set(range(1, 13)) - set(rows))


@pytest.mark.parametrize(
    ("rows", "ranges"),
    [
        ([7], [(7, 7)]),
        ([1, 2, 3], [(1, 3)]),
        ([1, 2, 4, 5, 9], [(1, 2), (4, 5), (9, 9)]),
        ([1, 3, 5, 7], ()),  # more than the oldest, the express and the newest rows
        ([3, 2], ()),
    ],
)
def test_rows_with_few_gaps_are_ranges(rows: list[int], ranges: list[tuple[int, int]]) -> None:
    assert RowSet.of(rows).ranges == ranges


def test_a_deletion_keeps_the_other_conditions(connection: sqlite3.Connection) -> None:
    for rows, kept in (([1, 2, 3], 2), ([5, 7, 9, 11], 9)):
        RowSet.of(rows).delete(connection, DROP, kept)
        assert kept in seqs(connection, "rows")
    assert seqs(connection, "rows") == [2, 4, 6, 8, 9, 10, 12]
