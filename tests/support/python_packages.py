"""Packages of PyPI that clash with the locked ones: installed from a lock of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.neighbours import lacks
from tests.support.storage import PATIENCE_SECONDS


def installed(lock: Path, folder: Path) -> Path:
    """`folder` with what `lock` names; skips where pip can't install, except in CI."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    wishes = ("--no-compile", "--require-hashes", "--no-deps", "--requirement", str(lock))
    done = subprocess.run(
        [*pip, "install", *wishes, "--target", str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if done.returncode:
        lacks(f"pip that installs the packages: {done.stderr[-500:]}")
    return folder


def run_with(folders: list[Path], *arguments: str) -> str:
    """What `python <arguments>` printed; its imports are looked for in `folders` first."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
