"""No statement of a search grows with the outbox: a page costs the same among any rows."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.outbox.model import Filter, State
from service.outbox.postgres.database.connection import statements
from service.outbox.postgres.rows import filter_values, source_of
from service.outbox.schema import migrate
from service.outbox.sqlite.file.connection import SQL
from service.outbox.sqlite.inspector import _searched
from tests.support import explained
from tests.support.postgres_server import PostgresServer

WINDOW = 1_000
SIZES = (12_000, 60_000)
POSTGRES = statements("outbox")
REACH_PENDING = POSTGRES["REACH_PENDING"].decode()
STATES = (None, State.PENDING, State.DELIVERED, State.DEAD)

_FILL = """
INSERT INTO outbox.events (seq, event_id, name, owner, user_id, accepted_at_ms, payload)
SELECT i, 'made-' || lpad(i::text, 12, '0'), 'n', 'o', 'u' || i % 50, i * 1000, '\\x00'
FROM generate_series(1, {rows}) AS i;
INSERT INTO outbox.done (seq, settled_at_ms, attempts, sends, isolated, dead, reason)
SELECT seq, accepted_at_ms, 1, 1, false, seq % 2 = 0, CASE WHEN seq % 2 = 0 THEN 'rejected' END
FROM outbox.events WHERE seq % 4 < 3;
INSERT INTO outbox.ready (seq, payload_bytes, due_at)
SELECT seq, 1, CASE WHEN seq % 8 = 3 THEN clock_timestamp() END
FROM outbox.events WHERE seq % 4 = 3;
ANALYZE
"""


@pytest.fixture(scope="module")
def servers(postgres: PostgresServer) -> Iterator[list[psycopg.Connection[Any]]]:
    """Outboxes of the two sizes, with rows of each state everywhere."""
    with contextlib.ExitStack() as stack:
        connections = []
        for rows in SIZES:
            url = stack.enter_context(postgres.database(f"search_{rows}"))
            migrate(url)
            connection = stack.enter_context(psycopg.connect(url, autocommit=True))
            connection.execute(_FILL.format(rows=rows))
            connections.append(connection)
        yield connections


def pages(connection: psycopg.Connection[Any], statement: str, given: dict[str, Any]) -> int:
    return explained.pages(explained.explained(connection, statement, given))


def reach(connection: psycopg.Connection[Any], state: State | None, before: int) -> int:
    given = looked(before)
    cursor = psycopg.ClientCursor(connection)
    cursor.execute(reaching(state), given)
    return int(cursor.fetchall()[0][0])


def listing(wanted: Filter) -> str:
    return POSTGRES[f"ROWS {source_of(wanted)}"].decode()


def reaching(state: State | None) -> str:
    if state is State.PENDING:
        return REACH_PENDING
    return POSTGRES[f"REACH {state or 'events'}"].decode()


def looked(before: int) -> dict[str, int | None]:
    return {"skipped": WINDOW - 1, "before": before, "in_owner": None}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("place", ["newest", "deep"])
def test_on_postgresql_a_window_costs_the_same_in_a_larger_outbox(
    servers: list[psycopg.Connection[Any]], state: State | None, place: str
) -> None:
    costs = []
    for rows, connection in zip(SIZES, servers, strict=True):
        before = rows + 1 if place == "newest" else rows * 3 // 4 if state else rows // 2
        after = reach(connection, state, before) - 1
        for user in (None, "nobody"):
            wanted = Filter(state=state, user_id=user, before_seq=before, after_seq=after, limit=51)
            found = pages(connection, listing(wanted), filter_values(wanted))
            costs.append(found + pages(connection, reaching(state), looked(before)))
    small, large = costs[:2], costs[2:]
    assert max(large) <= 1.5 * max(small) + 200, costs


def test_on_postgresql_a_beginning_of_ids_and_a_moment_are_found_by_an_index(
    servers: list[psycopg.Connection[Any]],
) -> None:
    wanted = Filter(id_prefix="made-00000000123", limit=51)
    small, large = (pages(one, listing(wanted), filter_values(wanted)) for one in servers)
    assert large <= 1.5 * small + 50
    assert pages(servers[1], POSTGRES["SEQ_AT"].decode(), {"at_ms": 30_000_000}) < 200


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("search") / "outbox.db"
    migrate(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection


def searched(wanted: Filter) -> str:
    return f"{SQL['ROWS']} {_searched(wanted, 0)[0]}"


def plan(connection: sqlite3.Connection, statement: str) -> list[str]:
    named = dict.fromkeys(re.findall(r":(\w+)", statement), 1)
    return [step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", named)]


@pytest.mark.parametrize("state", [None, *State])
def test_on_sqlite_a_window_is_a_range_read_in_order(
    file: sqlite3.Connection, state: State | None
) -> None:
    steps = plan(file, searched(Filter(state=state, before_seq=9, after_seq=1)))
    assert "rowid>? AND rowid<?" in steps[0] or "seq>? AND seq<?" in steps[0], steps
    looks = plan(file, SQL[f"REACH_{state.upper() if state else 'ALL'}"])
    assert "rowid<?" in looks[0] or "seq<?" in looks[0], looks
    bad = [one for one in (*steps, *looks) if "TEMP B-TREE" in one or one.startswith("SCAN")]
    assert bad == []


def test_on_sqlite_a_window_of_an_owner_is_a_range_of_its_index(file: sqlite3.Connection) -> None:
    for state in (None, *State):
        wanted = Filter(state=state, owner="o", before_seq=9, after_seq=1)
        assert "(owner=? AND seq>? AND seq<?)" in plan(file, searched(wanted))[0]
    assert "(owner=? AND seq<?)" in plan(file, SQL["REACH_OF_OWNER"])[0]
