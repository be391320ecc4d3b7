"""The mutants of the functions and views that migrations make in PostgreSQL.

One is named like a file of its migration:
`migrations/postgresql/0002_partitions.sql/outbox_fold`. Its mutants are planted in the database
that the tests' own are copies of.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.support.mutation.function_changes import function_changes
from tests.support.mutation.in_place import Codes, Collected, tried_in_place
from tests.support.mutation.judged_run import fork
from tests.support.mutation.mutants import called
from tests.support.mutation.sql_changes import sql_changes
from tests.support.mutation.trial import (
    ROOT,
    SWEPT_AFTER,
    Verdict,
    chosen,
    measured,
    try_each,
    warm_up,
)
from tests.support.shared_postgres import TEMPLATE, shared_postgres

_COMMENT = re.compile(r"^ *--.*\n| *--.*", re.MULTILINE)
_FUNCTION = r"CREATE (?:OR REPLACE )?FUNCTION {name}\(.*?\$\$(.*?)\$\$;"
_VIEW = r"(CREATE VIEW {name} AS\s.*?);\n"
_MAKES_A_VIEW = "CREATE VIEW "
_MAKES_IT_AGAIN = "CREATE OR REPLACE VIEW public."
_DEFINITION = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE prosrc = %s"


@dataclass(frozen=True, slots=True)
class SqlMutant:
    """A change of a function's body, or of the statement that makes a view."""

    name: str
    line: int
    body: str
    instead: str


def is_function(path: str) -> bool:
    """Whether a path names a function or a view of a migration."""
    return Path(path).parent.suffix == ".sql"


def sql_mutants(path: str) -> list[SqlMutant]:
    """Every mutant of a function or a view of a migration."""
    source = (ROOT / path).parent.read_text()
    name = Path(path).name
    for pattern in (_FUNCTION, _VIEW):
        defined = re.search(pattern.format(name=name), source, re.DOTALL)
        if defined:
            break
    else:
        raise KeyError(path)
    body = defined.group(1)
    line = source.count("\n", 0, defined.start()) + 1
    names = Counter[str]()
    found = []
    bare = _COMMENT.sub("", body)
    for change, instead in (*sql_changes(bare), *function_changes(bare)):
        found.append(SqlMutant(called(names, name, change), line, body, instead))
    return found


def plant(connection: psycopg.Connection[Any], body: str, instead: str) -> None:
    """Give the function or view with this body another one; its settings and rights stay."""
    if body.startswith(_MAKES_A_VIEW):
        # The schema `outbox` comes before, for the role of that name.
        connection.execute(instead.replace(_MAKES_A_VIEW, _MAKES_IT_AGAIN, 1))
        return
    [(definition,)] = connection.execute(_DEFINITION, [body]).fetchall()
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
        quickest = sorted(unchanged.tests, key=lambda test: unchanged.seconds[test])
        patience = unchanged.patience(quickest)

        def try_them(collected: Collected, output: Path) -> Codes:
            return _planted(found, lambda: collected.run(quickest), output, patience)

        codes = tried_in_place(judges, __name__, Path(folder), try_them)
    verdict.survivors = [one for at, one in enumerate(found) if codes[at] == 0]
    verdict.hung = [one for at, one in enumerate(found) if codes[at] < 0]
    verdict.seconds = time.perf_counter() - began
    return verdict


def _planted(
    found: Sequence[SqlMutant], run: Callable[[], int], output: Path, patience: float
) -> Codes:
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
        if at % SWEPT_AFTER == 0:
            server.sweep()
    return codes
