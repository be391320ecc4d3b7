"""Histories by seed: the real SQLite store, relay and confirmer through faults, hours in seconds.

SIMULATED_HISTORIES says how many; a failure names its seed, and the same seed lives through it
again: `python -m tests.support.simulation SEED SEED 2`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.simulation.planted import PLANTED

HISTORIES = int(os.environ.get("SIMULATED_HISTORIES", "1"))
HOURS = "1" if os.environ.get("CI") or HISTORIES > 1 else "0.2"
MOST_SEEDS = "12"


def simulated(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.simulation", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=14400)


@pytest.mark.timeout(14400)
def test_no_history_breaks_a_promise() -> None:
    done = simulated("1", str(HISTORIES), HOURS)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bug", PLANTED if HISTORIES > 1 else list(PLANTED)[:1])
def test_a_planted_bug_is_found(bug: str) -> None:
    done = simulated("1", MOST_SEEDS, "1", bug)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "HistoryError" in done.stdout
