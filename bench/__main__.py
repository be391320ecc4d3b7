"""`python -m bench`: measure the service beside what it replaces, and judge it by the goals.

Prints the table of the goals. A whole run also writes `results.json`, the documentation's table and
pictures; `--quick` takes a minute and a half and writes nothing. `--only` takes some parts: posts,
syncs, curve, outage, picture, backlog, confirm, idle, crowd, waiters, start, partial, arrays,
fronts, private. With `--keep` their figures replace the older ones; what was not measured stays.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import (
    arrays,
    backlog,
    confirm,
    crowd,
    fronts,
    goals,
    idle,
    load,
    outage,
    partial,
    posts,
    private,
    processes,
    results,
    waiters,
)
from bench.generator import allow_many_files
from bench.processes import Server
from bench.rounds import Run

PAGES = processes.ROOT / "docs" / "explain"
_BUSY = 1.0
_BRIEF = ("posts", "syncs", "outage", "backlog", "idle", "crowd", "start")


def main() -> int:
    options = _options()
    if not Path("/proc/self/stat").exists():
        sys.exit("The bench reads processor time and memory from /proc: it needs Linux.")
    if not load.WRK:
        print(load.HOW_TO_GET_WRK)
    if os.getloadavg()[0] > _BUSY:
        print(
            f"Others keep this machine busy (load {os.getloadavg()[0]:.1f}): repeat what is missed."
        )
    allow_many_files()
    folder = Path(tempfile.mkdtemp(dir=processes.ROOT, prefix=".bench-"))
    run = Run(options.quick, folder)
    run.details["machine"] = _machine()
    try:
        for name in _wanted(options):
            print(name, flush=True)
            PARTS[name](run)
    finally:
        shutil.rmtree(folder)
    print(goals.table(run.figures))
    if not options.quick and (options.keep or not options.only):
        results.write(run, PAGES, keep=bool(options.only))
    return 0


def _posts(run: Run) -> None:
    _with_both(run, posts.beside_handlers)


def _curve(run: Run) -> None:
    _with_both(run, posts.over_connections)


def _with_both(run: Run, measure: Callable[[Run, Server, Server], None]) -> None:
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as name,
        processes.sink() as sink,
        processes.handlers(sink.url) as handlers,
        processes.service(sink.url, Path(name)) as service,
    ):
        measure(run, service, handlers)


def _with_sink(measure: Callable[[Run, Server], None]) -> Callable[[Run], None]:
    def part(run: Run) -> None:
        with processes.sink() as sink:
            measure(run, sink)

    return part


def _crowd(run: Run) -> None:
    _with_sink(crowd.at_once)(run)
    _with_sink(crowd.in_flight)(run)


def _partial(run: Run) -> None:
    partial.drains(run)
    partial.good_among_bad(run)


PARTS: dict[str, Callable[[Run], None]] = {
    "posts": _posts,
    "syncs": _with_sink(posts.syncs),
    "curve": _curve,
    "outage": outage.latencies,
    "picture": outage.picture,
    "backlog": backlog.measure,
    "confirm": confirm.measure,
    "idle": idle.measure,
    "crowd": _crowd,
    "waiters": waiters.measure,
    "start": _with_sink(crowd.start),
    "partial": _partial,
    "arrays": arrays.measure,
    "fronts": fronts.measure,
    "private": private.measure,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="shorter rounds, nothing is written")
    parser.add_argument("--only", help=f"some of: {','.join(PARTS)}")
    parser.add_argument("--keep", action="store_true", help="write the figures of --only, too")
    return parser.parse_args()


def _wanted(options: argparse.Namespace) -> tuple[str, ...]:
    if not options.only:
        return _BRIEF if options.quick else tuple(PARTS)
    wanted = tuple(options.only.split(","))
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"there is no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    return wanted


def _machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
        "load": [round(one, 2) for one in os.getloadavg()],
        "generator": "wrk" if load.WRK else "bench.generator",
    }


if __name__ == "__main__":
    sys.exit(main())
