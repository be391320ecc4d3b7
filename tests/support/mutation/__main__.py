"""`python -m tests.support.mutation [MODULE…]`: tries the mutants of these modules.

A module is a path or the beginning of one, such as service/relay/outcome.py; without one all have
their turn. So is a function that a migration makes, behind the migration's path. MUTANTS is how
many of each module are tried, as drawn by SEED; all without it. JOBS is how many run at once.
PATIENCE, such as 5, makes waits longer on a busy machine, where a slow test would pass for a killed
mutant. Prints a table and the survivors, and exits with 1 when there are any.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext

from tests.support.mutation.harmless import harmless
from tests.support.mutation.judges import JUDGES, modules_of
from tests.support.mutation.sql_functions import is_function, try_function
from tests.support.mutation.trial import Verdict, try_module
from tests.support.proof_table import add_row
from tests.support.shared_postgres import sharing_postgres

ROW = "{:44} {:>7} {:>7} {:>8} {:>9} {:>7}"


def main(names: list[str]) -> int:
    paths = modules_of(names)
    with sharing_postgres() if any("postgres" in one for one in paths) else nullcontext():
        return _try_modules(paths)


def _try_modules(paths: list[str]) -> int:
    most = os.environ.get("MUTANTS")
    known = harmless()
    verdicts = []
    print(ROW.format("module", "mutants", "killed", "harmless", "survivors", "seconds"), flush=True)
    for path in paths:
        given = {
            "most": int(most) if most else None,
            "seed": int(os.environ.get("SEED", "1")),
            "only": os.environ.get("ONLY", ""),
            "known": list(known.get(path, ())),
        }
        judges = JUDGES[path].arguments()
        if is_function(path):
            verdict = try_function(path, judges, **given)
        else:
            verdict = try_module(path, judges, jobs=int(os.environ.get("JOBS", "1")), **given)
        verdicts.append(verdict)
        print(_row(path, verdict, len(known.get(path, ()))), flush=True)
        for line in _survivors(path, verdict):
            print(line, flush=True)
    tried = sum(verdict.tried for verdict in verdicts)
    alive = sum(len(verdict.alive) for verdict in verdicts)
    print(f"{tried} mutants, {tried - alive} killed, {alive} survive")
    add_row("mutants", f"{tried} mutants", f"{tried - alive} of {tried}", "-")
    return 1 if alive else 0


def _row(path: str, verdict: Verdict, known: int) -> str:
    killed = verdict.tried - len(verdict.alive)
    figures = (verdict.tried, killed, known, len(verdict.alive), round(verdict.seconds))
    return ROW.format(path.removeprefix("service/"), *figures)


def _survivors(path: str, verdict: Verdict) -> list[str]:
    told = [f"  {path}:{one.line} {one.name}" for one in verdict.survivors]
    told += [f"  {path}:{one.line} {one.name} (no test runs it)" for one in verdict.unreached]
    if os.environ.get("HUNG"):
        told += [f"  {path}:{one.line} {one.name} (killed by time)" for one in verdict.hung]
    return told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
