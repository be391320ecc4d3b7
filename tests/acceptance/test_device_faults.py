"""A device that fails once, at any sync or write, and a kill and power cuts after it, lose nothing.

DEVICE_FAULTS_EVERY says of how many faults one is tried; where it is set, bugs are planted too.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.disk_shim import DiskShim
from tests.support.power_cuts.planted import DEVICE_BUGS

FEW_FAULTS = 97
EVERY = int(os.environ.get("DEVICE_FAULTS_EVERY", FEW_FAULTS))
STATES = 24


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_no_fault_of_the_device_loses_what_was_answered(tmp_path_factory) -> None:
    shim = DiskShim(tmp_path_factory.mktemp("device"))
    bugs = () if EVERY == FEW_FAULTS else DEVICE_BUGS
    module = "tests.support.power_cuts.device_faults"
    done = subprocess.run(
        [sys.executable, "-m", module, str(EVERY), str(STATES), *bugs],
        env={**os.environ, "LD_PRELOAD": shim.environment["LD_PRELOAD"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=14400,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
