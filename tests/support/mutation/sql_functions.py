"""The mutants of the functions that migrations make in PostgreSQL.

A function is named like a file of its migration:
`migrations/postgresql/0002_partitions.sql/outbox_fold`. Its mutants are planted in the database
that the tests' own are copies of.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.support.mutation.in_place import Collected, with_collected
from tests.support.mutation.judged_run import PATIENCE, ended, fork
from tests.support.mutation.mutants import short
from tests.support.mutation.sql_changes import sql_changes
from tests.support.mutation.trial import ROOT, Verdict, chosen, measured, try_each, warm_up
from tests.support.shared_postgres import TEMPLATE, shared_postgres

_DEFINITION = "SELECT pg_get_functiondef(oid), prosrc FROM pg_proc WHERE prosrc = ANY(%s)"
_LEAST_SECONDS = 10.0 * PATIENCE
_TIMES = 6.0
_SWEPT_AFTER = 16


@dataclass(frozen=True, slots=True)
class SqlMutant:
    """A change of a function's body."""

    name: str
    line: int
    body: str
    instead: str


def is_function(path: str) -> bool:
    """Whether a path names a function of a migration."""
    return Path(path).parent.suffix == ".sql"


def sql_mutants(path: str) -> list[SqlMutant]:
    """Every mutant of a function of a migration."""
    source = (ROOT / path).parent.read_text()
    name = Path(path).name
    defined = re.search(
        rf"CREATE (?:OR REPLACE )?FUNCTION {name}\(.*?\$\$(.*?)\$\$;", source, re.DOTALL
    )
    if not defined:
        raise KeyError(path)
    body = defined.group(1)
    line = source.count("\n", 0, defined.start()) + 1
    names = Counter[str]()
    found = []
    for change, instead in sql_changes(body):
        called = f"{name}: {short(change)}"
        names[called] += 1
        number = f" #{names[called]}" if names[called] > 1 else ""
        found.append(SqlMutant(called + number, line, body, instead))
    return found


def plant(connection: psycopg.Connection[Any], body: str, instead: str) -> None:
    """Give the function with this body another one; its settings and rights stay."""
    [(definition, _)] = connection.execute(_DEFINITION, [[body]]).fetchall()
    connection.execute(definition.replace(body, instead))


def try_function(
    path: str,
    judges: Sequence[str],
    *,
    most: int | None = None,
    seed: int = 0,
    only: str = "",
    known: Sequence[str] = (),
) -> Verdict:
    """Try the mutants of a function, one at a time; see `try_module`."""
    found = chosen(sql_mutants(path), most, seed, only, known)
    verdict = Verdict(path, tried=len(found))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        unchanged = measured((ROOT / path).parent, judges, Path(folder))
        warm_up(unchanged)
        patience = _LEAST_SECONDS + _TIMES * sum(unchanged.seconds.values())
        quickest = sorted(unchanged.tests, key=lambda test: unchanged.seconds[test])
        answer, output = Path(folder) / "in-place", Path(folder) / "collected"

        def try_them(collected: Collected) -> None:
            codes = _planted(found, lambda: collected.run(quickest), output, patience)
            answer.write_text(json.dumps(codes))

        pid = fork(lambda: with_collected(judges, __name__, try_them), output, None)
        while ended(pid, math.inf) is None:
            time.sleep(0.01)
        codes = {int(at): code for at, code in json.loads(answer.read_text()).items()}
    verdict.survivors = [one for at, one in enumerate(found) if codes[at] == 0]
    verdict.hung = [one for at, one in enumerate(found) if codes[at] < 0]
    verdict.seconds = time.perf_counter() - began
    return verdict


def _planted(
    found: Sequence[SqlMutant], run: Callable[[], int], output: Path, patience: float
) -> dict[int, int]:
    """How each trial ended; the function is as it was before the next."""
    server = shared_postgres()
    if server is None:
        raise RuntimeError("there is no PostgreSQL")
    url = server.url(TEMPLATE)
    codes = {}
    for at, one in enumerate(found):
        with psycopg.connect(url) as connection:
            try:
                plant(connection, one.body, one.instead)
            except psycopg.Error:
                codes[at] = 1  # it is no function any more
                continue
        codes |= try_each([at], lambda _, most: fork(run, output, most), lambda _: patience, 1)
        with psycopg.connect(url) as connection:
            plant(connection, one.instead, one.body)
        if at % _SWEPT_AFTER == 0:
            server.sweep()
    return codes
