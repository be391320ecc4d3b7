"""`python -m tests.support.power_cuts STATES [NAME …]`: power cuts in loads, and in planted bugs.

STATES is for all loads together. Prints a line for each, and the sum at the end. Exits with 1 when
a load shows a fault, or a planted bug shows none. Needs the shim of `tests/support/disk_shim.py`
preloaded; names are those of `LOADS` and `PLANTED`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import structlog

from tests.support.memory_folder import memory_folder
from tests.support.power_cuts.planted import PLANTED
from tests.support.power_cuts.recording import LOADS, LoadError, Recording, record
from tests.support.power_cuts.trial import Plan, Tried, try_cuts
from tests.support.proof_table import add_row

SHARES = {
    "posts": 0.42,
    "service": 0.2,
    "backup": 0.12,
    "migration": 0.06,
    "move": 0.14,
    "restore": 0.06,
}
_STATES_FOR_A_BUG = (300, 1000, 3000, 9000)
_ATTEMPTS = 3


def main(wanted: int, names: list[str]) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    states, delivered, bugs, faults = 0, 0, 0, Counter[str]()
    names = names or [*LOADS, *PLANTED]
    with tempfile.TemporaryDirectory(prefix="outbox-cuts-", dir=memory_folder()) as folder:
        for number, name in enumerate(names):
            began = sum(os.times()[:4])
            recording = _recorded(Path(folder) / str(number), name)
            tried = _search(recording) if name in PLANTED else _try_all(recording, wanted)
            if name in PLANTED:
                bugs += bool(tried.faults)
            else:
                states += len(tried.marks)
                delivered += tried.delivered
                faults += tried.faults
            print(_line(name, tried, sum(os.times()[:4]) - began), flush=True)
    planted = sum(name in PLANTED for name in names)
    print(f"{states} states with {faults.total()} faults; {bugs} of {planted} planted bugs found")
    words = f"{states:,} states, {delivered:,} deliveries"
    add_row("power cuts", words, f"{bugs} of {planted}", str(faults.total()))
    return 1 if faults or bugs < planted else 0


def _recorded(folder: Path, name: str) -> Recording:
    """The record of a load. A planted bug may lose what its load waits for: then it begins anew."""
    for attempt in range(_ATTEMPTS - 1 if name in PLANTED else 0):
        with contextlib.suppress(LoadError):
            return record(folder / str(attempt), name)
    return record(folder / "last", name)


def _try_all(recording: Recording, wanted: int) -> Tried:
    states = round(wanted * SHARES[recording.load])
    return try_cuts(recording, Plan(states), workers=os.cpu_count() or 1)


def _search(recording: Recording) -> Tried:
    """Try more and more states until one shows a fault."""
    tried = Tried()
    for states in _STATES_FOR_A_BUG:
        tried.add(try_cuts(recording, Plan(states, first_fault=True, seed=states), workers=1))
        if tried.faults:
            break
    return tried


def _line(name: str, tried: Tried, seconds: float) -> str:
    faults = ", ".join(f"{count} x {fault}" for fault, count in tried.faults.items())
    return (
        f"{name}: {len(tried.marks)} states of {tried.cuts} cuts at {tried.moments} moments, "
        f"{tried.delivered} deliveries, {seconds:.1f} s of processor time; {faults or 'no fault'}"
    )


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
