"""`python -m tests.support.power_cuts.device_faults EVERY`: a device fails once.

Each sync of the database and its log fails in turn, and each write. After it the process goes on,
or is killed at one of the next changes; then the power is cut. One of `EVERY` such faults is tried.
Exits with 1 when one shows a fault. `search` instead of EVERY tries them until one does, and exits
with `FOUND` then.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.disk_shim import Operation, preload
from tests.support.memory_folder import memory_folder
from tests.support.power_cuts.recording import Fault, record
from tests.support.power_cuts.small_files import ANSWERS
from tests.support.power_cuts.trial import Plan, Tried, try_cuts
from tests.support.proof_table import FOUND, add_row, quiet_log

LOAD = "device"
STATES = 24  # of the power cuts after a fault
# After a fault: until a copy of the log has ended, and until the process is well again.
MOMENTS = (30, 120)
LEAST = 3
KILLS = (None, 0, 1, 2, 3, 5, 8, 13, 21)


def main(every: int) -> int:
    tried, faults, events = _tried(every)
    words = f"{len(tried.marks):,} states, {faults:,} faults, {events:,} events"
    print(f"{words} with {tried.faults.total()} faults {dict(tried.faults)}", flush=True)
    add_row("device faults", words, f"{tried.faults.total()} faults")
    return 1 if tried.faults else 0


def search() -> int:
    tried, *_ = _tried(1, first_fault=True)
    print(dict(tried.faults) or "no fault")
    return FOUND if tried.faults else 0


def _tried(every: int, *, first_fault: bool = False) -> tuple[Tried, int, int]:
    """What was tried, after how many faults, and how many events were answered there."""
    tried, faults, events = Tried(), 0, 0
    with tempfile.TemporaryDirectory(prefix="outbox-device-", dir=memory_folder()) as made:
        folder = Path(made)
        for number, fault in enumerate(_faults(folder, every)):
            recording = record(folder / "one", LOAD, fault)
            after = MOMENTS[number % len(MOMENTS)]
            plan = Plan(STATES, LEAST, first_fault=first_fault, seed=number, after_fault=after)
            tried.add(try_cuts(recording, plan, workers=os.cpu_count() or 1))
            shutil.rmtree(folder / "one")
            faults += 1
            events += sum(map(_is_answer, recording.operations))
            if first_fault and tried.faults:
                break
    return tried, faults, events


def _is_answer(one: Operation) -> bool:
    """True for the answer of a post; a line that begins with a minus is that of a delivery."""
    return one.path.endswith(ANSWERS) and one.operation == "W" and not one.data.startswith(b"-")


def _faults(folder: Path, every: int) -> Iterator[Fault]:
    """Faults of syncs and writes, as many as a load without one makes; the syncs first."""
    counts = Counter(
        one.operation
        for one in record(folder / "whole", LOAD).operations
        if ".db" in one.path and ANSWERS not in one.path and not one.path.endswith(".lock")
    )
    shutil.rmtree(folder / "whole")
    syncs = [Fault(f"S{at}", kill) for kill in KILLS for at in range(1, counts["S"] + 1)]
    writes = [Fault(f"W{at}", KILLS[at % len(KILLS)]) for at in range(1, counts["W"] + 1)]
    yield from [*syncs, *writes][every - 1 :: every]


if __name__ == "__main__":
    preload("tests.support.power_cuts.device_faults")
    quiet_log()
    sys.exit(search() if sys.argv[1:] == ["search"] else main(int(sys.argv[1])))
