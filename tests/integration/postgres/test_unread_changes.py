"""How an append folds changes that nobody has read: up to numbers whose writers have ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer

FOLD = "SELECT outbox_fold_unread()"
FOLDED = "SELECT changes_folded FROM outbox_meta"
NOTED = "SELECT no, writers FROM outbox_changes WHERE writers IS NOT NULL ORDER BY no"
WRITES = "LOCK TABLE outbox_changes IN ROW EXCLUSIVE MODE"
LOOKS_ON = """
LOCK TABLE outbox_changes IN ROW SHARE MODE; LOCK TABLE outbox_ready IN ROW EXCLUSIVE MODE
"""
TRANSACTION = """
SELECT DISTINCT virtualtransaction FROM pg_locks
WHERE locktype = 'virtualxid' AND pid = pg_backend_pid()
"""
LATER = [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE]

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def urls(postgres: PostgresServer) -> Iterator[tuple[str, str]]:
    """An outbox, and a copy whose tables have the same numbers in the server."""
    with new_outbox(postgres, "unread") as url:
        name = str(conninfo_to_dict(url)["dbname"])
        with postgres.database("unread_copy", name) as copy:
            yield url, copy


@contextlib.contextmanager
def beside(url: str, statement: str) -> Iterator[str]:
    """A transaction that has run a statement; its name."""
    with psycopg.connect(url) as connection:
        connection.execute(statement)
        [(name,)] = connection.execute(TRANSACTION).fetchall()
        yield str(name)
        connection.rollback()


@pytest.fixture
def mine(urls: tuple[str, str]) -> Iterator[Connection]:
    """A session in a transaction that has drawn change 5000 and folded none."""
    with psycopg.connect(urls[0]) as connection:
        begin(connection)
        yield connection
        connection.rollback()


def begin(connection: Connection, number: int = 5000) -> None:
    connection.execute("SELECT setval('outbox_changes_no_seq', %s, false)", [number])
    change(connection, delivered=1)


def change(connection: Connection, no: int | None = None, **values: Any) -> None:
    given = values if no is None else {"no": no, **values}
    names, places = ", ".join(given), ", ".join(f"%({name})s" for name in given)
    statement = f"INSERT INTO outbox_changes ({names}) OVERRIDING SYSTEM VALUE VALUES ({places})"
    connection.execute(statement.encode(), given)


def folded(connection: Connection) -> int:
    """The last change that is in the counts after an append has looked."""
    connection.execute(FOLD)
    [(number,)] = connection.execute(FOLDED).fetchall()
    return int(number)


def test_others_that_write_changes_are_noted(urls: tuple[str, str], mine: Connection) -> None:
    url, copy = urls
    with (
        beside(url, WRITES) as one,
        beside(url, WRITES) as other,
        beside(url, LOOKS_ON),
        beside(copy, WRITES),
    ):
        mine.execute(FOLD)
    [(number, writers)] = mine.execute(NOTED).fetchall()
    assert number == 5001
    assert sorted(writers) == sorted([one, other])


def test_a_fold_ends_at_the_last_number_whose_writers_have_ended(
    urls: tuple[str, str], mine: Connection
) -> None:
    change(mine, 10, writers=["9/999"])
    change(mine, 20, writers=[])
    with beside(urls[0], WRITES) as other:
        change(mine, 30, writers=["9/999", other])
        change(mine, 40)
        assert folded(mine) == 20
        assert folded(mine) == 20
    assert folded(mine) == 5003


def test_one_fold_takes_10_000_numbers(mine: Connection) -> None:
    begin(mine, 20_000)
    assert [folded(mine) for _ in range(4)] == [10_000, 20_000, 20_003, 20_004]


@pytest.mark.parametrize("level", psycopg.IsolationLevel)
def test_an_early_snapshot_folds_nothing(
    urls: tuple[str, str], level: psycopg.IsolationLevel
) -> None:
    with psycopg.connect(urls[0]) as connection:
        connection.isolation_level = level
        begin(connection)
        assert (folded(connection) > 0) is (level not in LATER)
        assert connection.execute(NOTED).fetchall() == [(5001, [])]
        connection.rollback()
