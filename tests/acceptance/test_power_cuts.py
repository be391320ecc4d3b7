"""A power cut at any moment, on a disk whose syncs fail now and then, loses nothing answered.

POWER_CUT_STATES says how many states of the disk are drawn; up to a quarter of them are equal. Bugs
that are planted on purpose show that the trial finds them; few of them where few states are drawn.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.disk_shim import DiskShim
from tests.support.power_cuts.planted import FEW, PLANTED
from tests.support.power_cuts.recording import LOADS

FEW_STATES = 2600
STATES = int(os.environ.get("POWER_CUT_STATES", FEW_STATES))
BUGS = FEW if STATES == FEW_STATES else tuple(PLANTED)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(14400)]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The trial of all loads and bugs."""
    shim = DiskShim(tmp_path_factory.mktemp("cuts"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.power_cuts", str(STATES), *LOADS, *BUGS],
        env={**os.environ, "LD_PRELOAD": shim.environment["LD_PRELOAD"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=14400,
    )
    print(done.stdout)
    return done


def test_no_power_cut_loses_what_was_answered(trial: subprocess.CompletedProcess[str]) -> None:
    assert trial.returncode in (0, 1), trial.stdout + trial.stderr
    [(states, faults)] = re.findall(r"^(\d+) states with (\d+) faults", trial.stdout, re.MULTILINE)
    assert faults == "0", trial.stdout
    assert int(states) > STATES * 0.75, trial.stdout


def test_each_bug_that_is_planted_is_found(trial: subprocess.CompletedProcess[str]) -> None:
    assert trial.returncode == 0, trial.stdout + trial.stderr
    assert f"{len(BUGS)} of {len(BUGS)} planted bugs found" in trial.stdout


def test_delivery_after_a_cut_is_tried(trial: subprocess.CompletedProcess[str]) -> None:
    [delivered] = re.findall(r"^service: .* (\d+) deliveries", trial.stdout, re.MULTILINE)
    assert int(delivered) > STATES * 0.01, trial.stdout
