"""What SQLite reads for each statement: never all payloads, however many rows wait."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.outbox import sqlite as room
from service.outbox.model import Filter, State
from service.outbox.queries import read_queries
from service.outbox.schema import migrate
from service.outbox.sqlite.appends import append_rows
from service.outbox.sqlite.inspector import _searched

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


@pytest.fixture(scope="module")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("plans") / "outbox.db"
    migrate(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection


def parameters(text: str, value: int) -> dict[str, int] | list[int]:
    return dict.fromkeys(re.findall(r":(\w+)", text), value) or [value] * text.count("?")


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_reads_all_rows_of_the_outbox(outbox: sqlite3.Connection, name: str) -> None:
    text = STATEMENTS[name]
    steps = outbox.execute(f"EXPLAIN QUERY PLAN {text}", parameters(text, 1))
    plan = [step for *_, step in steps]
    scans = [step for step in plan if re.match(r"SCAN outbox( USING|$)", step)]
    assert bool(scans) == (name in READ_EVERY_ROW), plan


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_is_prepared_once_whatever_its_values(
    outbox: sqlite3.Connection, name: str
) -> None:
    text, prepared = STATEMENTS[name], []

    def note(*details: object) -> int:  # SQLite asks while it prepares a statement
        prepared.append(details)
        return sqlite3.SQLITE_OK

    outbox.set_authorizer(note)
    try:
        for value in range(1, 4):
            seen = len(prepared)
            with contextlib.suppress(sqlite3.IntegrityError):
                outbox.execute(text, parameters(text, value)).fetchall()
    finally:
        outbox.set_authorizer(None)
        outbox.rollback()
    assert seen > 0
    assert prepared[seen:] == []


def test_no_statement_is_longer_than_a_page() -> None:
    assert {name: text.count("\n") for name, text in NAMED.items() if text.count("\n") >= 40} == {}
