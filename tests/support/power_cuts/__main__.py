"""`python -m tests.support.power_cuts STATES`: a power cut at any moment of each load.

STATES is for all loads together. Prints a line for each, and the sum at the end. Exits with 1 when
a load shows a fault, or when so few states differ that the trial says little.

`search LOAD` instead of STATES tries more and more states of one load until one shows a fault, and
exits with `FOUND` then.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.disk_shim import preload
from tests.support.memory_folder import memory_folder
from tests.support.power_cuts.recording import LoadError, Recording, record
from tests.support.power_cuts.trial import Plan, Tried, try_cuts
from tests.support.proof_table import FOUND, add_row, quiet_log

SHARES = {
    "posts": 0.42,
    "service": 0.2,
    "backup": 0.12,
    "migration": 0.06,
    "move": 0.14,
    "restore": 0.06,
}
LEAST_DIFFERENT, LEAST_DELIVERED = 0.75, 0.01
_STATES_OF_A_SEARCH = (300, 1000, 3000, 9000)
_ATTEMPTS = 3


def main(wanted: int) -> int:
    states, delivered, faults = 0, 0, Counter[str]()
    for load, share in SHARES.items():
        with _folder() as folder:
            recording = record(folder / load, load)
            plan = Plan(round(wanted * share))
            tried = try_cuts(recording, plan, workers=os.cpu_count() or 1)
        states += len(tried.marks)
        delivered += tried.delivered
        faults += tried.faults
        print(_line(load, tried), flush=True)
    print(f"{states} states with {faults.total()} faults")
    words = f"{states:,} states, {delivered:,} deliveries"
    add_row("power cuts", words, f"{faults.total()} faults")
    enough = states > wanted * LEAST_DIFFERENT and delivered > wanted * LEAST_DELIVERED
    return 0 if enough and not faults else 1


def search(load: str) -> int:
    with _folder() as folder:
        recording = _recorded(folder, load)
        for states in _STATES_OF_A_SEARCH:
            plan = Plan(states, first_fault=True, seed=states)
            tried = try_cuts(recording, plan, workers=1)
            print(_line(load, tried), flush=True)
            if tried.faults:
                return FOUND
    return 0


def _recorded(folder: Path, load: str) -> Recording:
    """The record of a load. A bug may lose what the load waits for: then it begins anew."""
    for attempt in range(_ATTEMPTS - 1):
        with contextlib.suppress(LoadError):
            return record(folder / str(attempt), load)
    return record(folder / "last", load)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="outbox-cuts-", dir=memory_folder()) as folder:
        yield Path(folder)


def _line(load: str, tried: Tried) -> str:
    faults = ", ".join(f"{count} x {fault}" for fault, count in tried.faults.items())
    return (
        f"{load}: {len(tried.marks)} states of {tried.cuts} cuts at {tried.moments} moments, "
        f"{tried.delivered} deliveries; {faults or 'no fault'}"
    )


if __name__ == "__main__":
    preload("tests.support.power_cuts")
    quiet_log()
    match sys.argv[1:]:
        case ["search", load]:
            sys.exit(search(load))
        case [states]:
            sys.exit(main(int(states)))
    sys.exit(__doc__)
