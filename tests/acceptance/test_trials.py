"""Each trial of `make proof`, in short: it sees no fault, and it sees bugs that are planted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.disk_shim import find_compiler
from tests.support.neighbours import lacks
from tests.support.postgres_server import find_binaries

HOURS, HISTORIES = ("1", "6") if os.environ.get("CI") else ("0.2", "2")

pytestmark = pytest.mark.timeout(3600)


@pytest.mark.parametrize(
    "trial",
    [
        f"simulation 1 1 {HOURS}",
        f"journal.history 0 {HISTORIES}",
        pytest.param("power_cuts 2600", marks=pytest.mark.slow),
        pytest.param("power_cuts.device_faults 97", marks=pytest.mark.slow),
        pytest.param("linearizability 1 sqlite", marks=pytest.mark.slow),
        pytest.param("linearizability 1 postgresql", marks=pytest.mark.slow),
    ],
)
def test_a_trial_sees_no_fault(trial: str) -> None:
    if "power_cuts" in trial and not find_compiler():
        lacks("compiler of C")
    if "postgresql" in trial and not find_binaries():
        lacks("PostgreSQL")
    assert exit_code(f"tests.support.{trial}".split()) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "bug",
    ["settle without retries", "new folders are not synced", "an event that is remembered"],
)
def test_a_trial_sees_a_planted_bug(bug: str) -> None:
    assert exit_code(["tests.planted", "--trials", bug]) == 0


def exit_code(module: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", *module], check=False, timeout=3600).returncode
