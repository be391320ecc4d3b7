"""The table of `make proof`: a row for each trial, in a file that PROOF_TABLE names.

`python -m tests.support.proof_table` prints it. Without PROOF_TABLE rows are dropped.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import structlog

FOUND = 3
"""The exit code of a trial that searched for a fault and found one."""
HEAD = ("trial", "tried", "found")


def quiet_log() -> None:
    """Drop what the service logs of the faults that a trial makes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def add_row(trial: str, tried: str, found: str) -> None:
    """Add a trial: what it tried, and the faults or planted bugs that it found."""
    if table := os.environ.get("PROOF_TABLE"):
        with Path(table).open("a") as file:
            file.write(json.dumps((trial, tried, found)) + "\n")


def formatted(lines: list[str]) -> str:
    """The table as text.

    >>> print(formatted(['["cuts", "9 states", "0 faults"]']))
    trial  tried     found
    cuts   9 states  0 faults
    """
    rows = [HEAD, *(json.loads(line) for line in lines)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    print(formatted(Path(os.environ["PROOF_TABLE"]).read_text().splitlines()))
