"""A power cut at any moment, on a disk whose syncs fail now and then, loses nothing answered.

Each trial is told what is broken on purpose, so that it is seen to find that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.disk_shim import DiskShim, read_record
from tests.support.power_cuts import CutTrial, cut_everywhere

STATES = int(os.environ.get("POWER_CUT_STATES", "200"))
LOAD = ("power_cut_load", 40)
MOVE = ("power_cut_move", 1500)


@pytest.fixture
def fast() -> Iterator[Path]:
    """An empty folder, in memory where that is possible."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="outbox-cuts-", dir=memory) as folder:
        yield Path(folder)


def cuts(
    tmp_path: Path, fast: Path, broken: str, states: int, load: tuple[str, int] = LOAD
) -> CutTrial:
    folder, record = tmp_path / "disk", tmp_path / "record"
    folder.mkdir()
    shim = DiskShim(folder, record=record)
    module, size = load
    command = (sys.executable, "-m", f"tests.support.{module}", str(folder), str(size), broken)
    subprocess.run(command, check=True, env={**os.environ, **shim.environment}, timeout=120)
    return cut_everywhere(read_record(record), fast, states=states)


def test_no_power_cut_loses_what_was_answered(tmp_path: Path, fast: Path) -> None:
    trial = cuts(tmp_path, fast, "nothing", STATES)
    assert trial.states > STATES * 0.8
    assert (trial.damaged, trial.lost_events) == (0, 0), trial


@pytest.mark.parametrize("broken", ["sync", "trust"])
def test_the_trial_finds_what_is_broken_on_purpose(tmp_path: Path, fast: Path, broken: str) -> None:
    trial = cuts(tmp_path, fast, broken, 150)
    assert trial.lost_events > 0, trial


def test_no_power_cut_loses_what_a_move_has_finished(tmp_path: Path, fast: Path) -> None:
    """Four syncs fail in it: in the migration, at the first page, amid the pages and at the end."""
    trial = cuts(tmp_path, fast, "nothing", STATES, MOVE)
    assert trial.states > STATES * 0.1
    assert (trial.damaged, trial.lost_events) == (0, 0), trial


def test_the_trial_finds_a_move_that_is_not_synced(tmp_path: Path, fast: Path) -> None:
    trial = cuts(tmp_path, fast, "sync", 150, MOVE)
    assert trial.lost_events > 0, trial
