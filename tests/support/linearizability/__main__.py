"""`python -m tests.support.linearizability HISTORIES STORE`: what operators see was true.

STORE is `sqlite`, where each history has an outbox of its own, or `postgresql`, where a server is
started and its outbox emptied for each. Exits with 1 when a history shows a fault. `search` instead
of HISTORIES ends at the first that does, and exits with `FOUND` then.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from inngest_outbox.outbox.schema import migrate
from tests.support.linearizability.record import Call
from tests.support.linearizability.trial import new_trial
from tests.support.postgres_rows import empty_outbox
from tests.support.postgres_server import needed_postgres
from tests.support.proof_table import FOUND, add_row, quiet_log

LIVES = 2
_MOST_SEEDS = 30  # of a search


def main(histories: int, store: str) -> int:
    calls, faults = 0, 0
    with _outbox(store) as url:
        for seed in range(1, histories + 1):
            count, fault = one(seed, url)
            calls, faults = calls + count, faults + bool(fault)
            if fault:
                print(f"seed {seed}: {fault}", flush=True)
    spent = sum(os.times()[:4])
    print(
        f"{store}: {histories} histories, {calls} calls with {faults} faults; "
        f"{spent:.1f} s of processor time"
    )
    tried = f"{histories} histories, {calls:,} calls"
    add_row(f"operators' view, {store}", tried, f"{faults} faults")
    return 1 if faults else 0


def search(store: str) -> int:
    with _outbox(store) as url:
        for seed in range(1, _MOST_SEEDS + 1):
            if fault := one(seed, url)[1]:
                print(f"seed {seed}: {fault}")
                return FOUND
    return 0


def one(seed: int, url: str) -> tuple[int, str]:
    """How many calls the history of a seed has, and what is wrong with it."""
    if url:
        empty_outbox(url)
    with new_trial(url, seed) as trial:
        calls: list[Call] = []
        try:
            calls = trial.run(LIVES)
            trial.check(calls)
        except (AssertionError, RuntimeError) as error:  # the others are tried all the same
            return len(calls), str(error)
        return len(calls), ""


@contextlib.contextmanager
def _outbox(store: str) -> Iterator[str]:
    """The address of the store's outbox; empty where each history has its own."""
    if store == "sqlite":
        yield ""
        return
    with needed_postgres() as server, server.database("outbox") as url:
        migrate(url)
        yield url


if __name__ == "__main__":
    quiet_log()
    what, store = sys.argv[1:]
    sys.exit(search(store) if what == "search" else main(int(what), store))
