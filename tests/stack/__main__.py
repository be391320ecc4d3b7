"""`make stack`: build, start and try the container stack, and show a table of figures.

Uses the engine that runs, else Debian's Docker, which root gets installed. Stand-ins take the
places of the images; `make stack IMAGES=real` pulls them. Exits with 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time

from tests.stack.command import StackError, say
from tests.stack.engine import engine
from tests.stack.image_trial import build_image, look_into_image
from tests.stack.images import make_python, make_stand_ins, pull_python
from tests.stack.journey_trial import follow_a_document
from tests.stack.late_trial import start_inngest_late
from tests.stack.metrics_trial import look_at_metrics
from tests.stack.replica_trial import trouble_replicas
from tests.stack.stack import EVERY_PROFILE, stack
from tests.stack.stop_trial import stop_and_start
from tests.stack.systemd_trial import run_by_systemd
from tests.stack.table import Table
from tests.stack.tools_trial import compare_with_table
from tests.stack.trouble_trial import trouble_each_part
from tests.stack.volume_trial import lose_each_volume


def main() -> int:
    """Run every trial on `real` images or `stand-ins`; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.stack")
    parser.add_argument("images", choices=("stand-ins", "real"))
    images = parser.parse_args().images
    # A stopped run still removes its containers and ends its engine.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    table = Table()
    try:
        with engine():
            try_all(table, real=images == "real")
    except StackError as error:
        table.add("ended early", str(error), good=False)
    table.show()
    for broken in table.broken:
        say(f"NOT AS PROMISED: {broken}")
    return 1 if table.broken else 0


def try_all(table: Table, *, real: bool) -> None:
    """The trials, on one stack."""
    table.add("images", "pulled" if real else "stand-ins")
    base = pull_python() if real else make_python()
    build_image(table, base=base)
    look_into_image(table)
    run_by_systemd(table, base)
    with stack({} if real else make_stand_ins()) as running:
        asyncio.run(start_inngest_late(running, table))
        running.profiles = EVERY_PROFILE
        began = time.monotonic()
        running.up()
        parts = running.containers()
        seconds = time.monotonic() - began
        profiles = f"the default profile, {' and '.join(EVERY_PROFILE)}"
        table.add("up", f"{len(parts)} containers healthy after {seconds:.0f} s ({profiles})")
        compare_with_table(running, table)
        for trial in (
            follow_a_document,
            look_at_metrics,
            trouble_each_part,
            trouble_replicas,
            lose_each_volume,
            stop_and_start,
        ):
            asyncio.run(trial(running, table))


if __name__ == "__main__":
    sys.exit(main())
