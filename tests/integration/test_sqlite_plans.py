"""What SQLite reads for each statement: never all payloads, however many rows wait."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.outbox import sqlite
from service.outbox.model import State
from service.outbox.schema import migrate
from service.outbox.sqlite import positions, rows
from service.outbox.sqlite.row_set import OfRows

_VERB = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE)\b")
_MODULES = [
    importlib.import_module(f"service.outbox.sqlite.{one.name}")
    for one in pkgutil.iter_modules(sqlite.__path__)
]


def forms(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and _VERB.match(value):
        yield "", value
    elif isinstance(value, OfRows):
        yield from ((f" {form}", statement) for form, statement in value._asdict().items())


def named_statements() -> Iterator[tuple[str, str]]:
    for module in _MODULES:
        names = [name for name in vars(module) if name.isupper() and not name.startswith("_")]
        for name in names:
            for form, statement in forms(vars(module)[name]):
                yield f"{module.__name__.rpartition('.')[2]}.{name}{form}", statement
    for (state, way), statement in rows.MATCHING.items():
        if state or way is not rows.Way.STATE:
            yield f"MATCHING {state} {way.name}", statement
            yield f"COUNT {state} {way.name}", rows.COUNT[state, way]
    for state, statement in positions.REACH.items():
        if state:
            yield f"REACH {state}", statement


STATEMENTS = dict(named_statements())
# `outbox stats --owners` says so in its help.
READ_EVERY_ROW = {"inspector.OWNERS"}


@pytest.fixture(scope="module")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("plans") / "outbox.db"
    migrate(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection


def test_the_statements_are_found() -> None:
    assert len(STATEMENTS) > 40
    assert {"statements.CLAIM_READ ranged", f"MATCHING {State.DEAD} OWNER"} <= set(STATEMENTS)


def parameters(text: str, value: int) -> dict[str, int] | list[int]:
    named = dict.fromkeys(re.findall(r":(\w+)", text), value)
    numbered = max(map(int, re.findall(r"\?(\d)", text)), default=text.count("?"))
    return named or [value] * numbered


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_reads_all_rows_of_the_outbox(outbox: sqlite3.Connection, name: str) -> None:
    text = STATEMENTS[name]
    steps = outbox.execute(f"EXPLAIN QUERY PLAN {text}", parameters(text, 1))
    plan = [step for *_, step in steps]
    scans = [step for step in plan if re.match(r"SCAN outbox\b", step)]
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
