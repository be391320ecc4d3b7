"""`python -m tests.support.simulation FIRST LAST HOURS`: the histories of these seeds.

Prints a line for each that breaks a promise, and figures at the end; exits with 1 if one does.
`search` instead of the numbers ends at the first that breaks one, and exits with `FOUND` then.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.support.memory_folder import memory_folder
from tests.support.proof_table import FOUND, add_row, quiet_log
from tests.support.simulation.clients import HistoryError
from tests.support.simulation.history import History
from tests.support.simulation.inline_world import Disk, install
from tests.support.virtual_time import VirtualLoop

_COLLECT_RARELY = 100_000, 20, 50
_MOST_SEEDS = 12  # of a search


def one(seed: int, hours: float) -> tuple[History, float]:
    """Live through the history of a seed; for how many hours a process ran in it."""
    random.seed(seed)  # the relay draws from it, too
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    disk = Disk(random.Random(seed))
    clocks = install(loop, disk)
    with tempfile.TemporaryDirectory(prefix="outbox-history-", dir=memory_folder()) as folder:

        async def live() -> History:
            (Path(folder) / "0").mkdir()
            history = History(seed, Path(folder), clocks, disk, hours)
            await history.run()
            return history

        try:
            history = loop.run_until_complete(live())
            return history, (loop.time() - history.down_seconds) / 3600
        finally:
            loop.close()


def main(first: int, last: int, hours: float) -> int:
    cpu = time.process_time
    began, lived, failed, events, kills = cpu(), 0.0, list[int](), 0, 0
    for seed in range(first, last + 1):
        try:
            history, seconds = one(seed, hours)
        except Exception as error:  # noqa: BLE001  (whatever it is, the seed is told)
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            if first == last:
                traceback.print_exc()
            continue
        lived += seconds
        events += len(history.told.answered)
        kills += history.told.kills
    spent = (cpu() - began) / 3600
    print(
        f"{last - first + 1} histories, {lived:.0f} hours, {events} events, {kills} kills, "
        f"{lived / spent:.0f} hours an hour of processor time; failed: {failed or 'none'}"
    )
    add_row("histories", f"{lived:,.0f} hours", f"{len(failed)} faults")
    return 1 if failed else 0


def search() -> int:
    for seed in range(1, _MOST_SEEDS + 1):
        try:
            one(seed, hours=1)
        except HistoryError as error:
            print(f"seed {seed}: {error}")
            return FOUND
    return 0


if __name__ == "__main__":
    quiet_log()
    gc.set_threshold(*_COLLECT_RARELY)
    if sys.argv[1:] == ["search"]:
        sys.exit(search())
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
