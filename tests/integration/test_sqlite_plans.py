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
from service.outbox.sqlite import positions, rows, transfer

_VERB = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE)\b")
_MODULES = [
    importlib.import_module(f"service.outbox.sqlite.{one.name}")
    for one in pkgutil.iter_modules(sqlite.__path__)
]


def named_statements() -> Iterator[tuple[str, str]]:
    for module in _MODULES:
        for name, value in vars(module).items():
            public = name.isupper() and not name.startswith("_")
            if public and isinstance(value, str) and _VERB.match(value):
                yield f"{module.__name__.rpartition('.')[2]}.{name}", value
    for (state, way), statement in rows.MATCHING.items():
        if state or way is not rows.Way.STATE:
            yield f"MATCHING {state} {way.name}", statement
            yield f"COUNT {state} {way.name}", rows.COUNT[state, way]
    for state, statement in positions.REACH.items():
        if state:
            yield f"REACH {state}", statement
    for number, statement in enumerate(transfer.DISPLACE):
        yield f"DISPLACE {number}", statement


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
    assert {"statements.CLAIM_READ", f"MATCHING {State.DEAD} OWNER"} <= set(STATEMENTS)


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_reads_all_rows_of_the_outbox(outbox: sqlite3.Connection, name: str) -> None:
    text = STATEMENTS[name]
    named = dict.fromkeys(re.findall(r":(\w+)", text), 1)
    numbered = max(map(int, re.findall(r"\?(\d)", text)), default=text.count("?"))
    plan = [
        step for *_, step in outbox.execute(f"EXPLAIN QUERY PLAN {text}", named or [1] * numbered)
    ]
    scans = [step for step in plan if re.match(r"SCAN outbox\b", step)]
    assert bool(scans) == (name in READ_EVERY_ROW), plan
