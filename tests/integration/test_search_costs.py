"""No statement reads all rows: a search costs the same among any, and SQLite's plans are known."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from inngest_outbox.outbox import sqlite as room
from inngest_outbox.outbox.audit import erased_words
from inngest_outbox.outbox.model import Filter, State
from inngest_outbox.outbox.postgres.database.connection import statements
from inngest_outbox.outbox.postgres.rows import filter_values, source_of
from inngest_outbox.outbox.queries import read_queries
from inngest_outbox.outbox.schema import migrate
from inngest_outbox.outbox.sqlite.appends import append_rows
from inngest_outbox.outbox.sqlite.file.connection import SQL
from inngest_outbox.outbox.sqlite.inspector import _searched
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
        connection.create_function("erased", 2, erased_words)
        yield connection


def searched(wanted: Filter) -> str:
    return f"{SQL['ROWS']} {_searched(wanted, 0)[0]}"


def parameters(text: str, value: int) -> dict[str, int] | list[int]:
    return dict.fromkeys(re.findall(r":(\w+)", text), value) or [value] * text.count("?")


def plan(connection: sqlite3.Connection, statement: str) -> list[str]:
    explain = f"EXPLAIN QUERY PLAN {statement}"
    return [step for *_, step in connection.execute(explain, parameters(statement, 1))]


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


NAMED = read_queries(Path(room.__file__).parent / "queries")
_SEARCHES = [
    {"ids": ("a",)},
    {"alias": "a", "owner": "o"},
    {"id_prefix": "a"},
    {"owner": "o"},
    {"owner": "o", "before_seq": 9},
    *({"state": state, "before_seq": 9, "after_seq": 1} for state in State),
    *({"state": state, "owner": "o", "name": "n", "since_ms": 1} for state in State),
]


def named_statements() -> Iterator[tuple[str, str]]:
    yield from ((name, text) for name, text in NAMED.items() if name != "ROWS")
    yield from ((f"append {rare=}", append_rows(2, is_rare=rare)) for rare in (False, True))
    for wanted in _SEARCHES:
        text, _ = _searched(Filter(**wanted), 0)  # type: ignore[arg-type]
        yield f"rows {wanted}", f"{NAMED['ROWS']} {text}"


STATEMENTS = dict(named_statements())
# `outbox stats --owners` says so in its help; a start looks at all rows for some seconds at most.
READ_EVERY_ROW = {"OWNERS", "STATELESS"}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_reads_all_rows_of_the_outbox(file: sqlite3.Connection, name: str) -> None:
    steps = plan(file, STATEMENTS[name])
    scans = [step for step in steps if re.match(r"SCAN outbox( USING|$)", step)]
    assert bool(scans) == (name in READ_EVERY_ROW), steps


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_is_prepared_once_whatever_its_values(
    file: sqlite3.Connection, name: str
) -> None:
    text, prepared = STATEMENTS[name], []

    def note(*details: object) -> int:  # SQLite asks while it prepares a statement
        prepared.append(details)
        return sqlite3.SQLITE_OK

    file.set_authorizer(note)
    try:
        for value in range(1, 4):
            seen = len(prepared)
            with contextlib.suppress(sqlite3.IntegrityError):
                file.execute(text, parameters(text, value)).fetchall()
    finally:
        file.set_authorizer(None)
        file.rollback()
    assert seen > 0
    assert prepared[seen:] == []


def test_no_statement_is_longer_than_a_page() -> None:
    assert {name: text.count("\n") for name, text in NAMED.items() if text.count("\n") >= 40} == {}
