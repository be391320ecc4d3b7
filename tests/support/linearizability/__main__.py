"""`python -m tests.support.linearizability HISTORIES [URL] [BUG …]`: what operators see was true.

Without a URL, or with an empty one, each history has an SQLite outbox; else the PostgreSQL outbox
there, which is emptied for each. Then each bug of `PLANTED` that is named is planted, on SQLite
also one of `SQLITE`, until a history finds it. Exits with 1 when a history shows a fault, or a bug
shows none.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog

from tests.support.linearizability.planted import PLANTED, SQLITE
from tests.support.linearizability.record import Call
from tests.support.linearizability.trial import new_trial
from tests.support.postgres_rows import empty_outbox
from tests.support.proof_table import add_row

LIVES = 2
MOST_SEEDS = 30


def main(histories: int, url: str = "", *bugs: str) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    store = "PostgreSQL" if url else "SQLite"
    calls, faults = 0, 0
    for seed in range(1, histories + 1):
        count, fault = one(seed, url)
        calls, faults = calls + count, faults + bool(fault)
        if fault:
            print(f"seed {seed}: {fault}", flush=True)
    found = sum(_find(bug, url) for bug in bugs)
    spent = sum(os.times()[:4])
    print(
        f"{store}: {histories} histories, {calls} calls with {faults} faults; "
        f"{found} of {len(bugs)} planted bugs found; {spent:.1f} s of processor time"
    )
    tried = f"{histories} histories, {calls:,} calls"
    add_row(f"operators' view, {store}", tried, f"{found} of {len(bugs)}", str(faults))
    return 1 if faults or found < len(bugs) else 0


def one(seed: int, url: str, bug: str | None = None) -> tuple[int, str]:
    """How many calls the history of a seed has, and what is wrong with it."""
    if url:
        empty_outbox(url)
    with new_trial(url, seed) as trial:
        calls: list[Call] = []
        try:
            calls = trial.run(LIVES, {**PLANTED, **SQLITE}[bug] if bug else None)
            trial.check(calls)
        except (
            AssertionError,
            RuntimeError,
        ) as error:  # the others are tried all the same
            return len(calls), str(error)
        return len(calls), ""


def _find(bug: str, url: str) -> bool:
    for seed in range(1, MOST_SEEDS + 1):
        if one(seed, url, bug)[1]:
            print(f"{bug}: found by history {seed}", flush=True)
            return True
    print(f"{bug}: not found", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
