"""The processes that run files of tests side by side tell each result, and none too few."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = """
import os, pytest

def test_passes(tmp_path): assert tmp_path.is_dir()

@pytest.mark.parametrize("n", [1, 2])
def test_fails(n): assert n == 1

def test_skips(): pytest.skip("why")

def test_after_an_end(): os._exit(0) if {ends} else None
"""


@pytest.mark.slow
def test_what_failed_and_what_never_ran_fails_the_run(tmp_path: Path) -> None:
    for name, ends in (("one", False), ("two", True), ("three", False)):
        (tmp_path / f"test_{name}.py").write_text(FILE.format(ends=ends))
    printed = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.support.forks", "--forks", "2"),
            *("-c", os.devnull, "--rootdir", tmp_path, tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode == 1, printed.stderr
    assert "4 failed, 8 passed, 3 skipped" in printed.stdout
    assert printed.stdout.count("The process that had taken this file ended") == 1
