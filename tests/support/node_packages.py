"""Packages of npm for tests, in a folder of their own.

Tests skip where npm can't install, except in CI.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.neighbours import lacks

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "typescript"
_NPM_SECONDS = 400  # a registry answers slowly now and then
_LEFT_OUT = shutil.ignore_patterns("node_modules", "dist", ".next")


def built_client(folder: Path) -> Path:
    """A copy of the TypeScript client in `folder`, installed and compiled; its `dist` is ready."""
    copy = installed(CLIENT, folder / "clients" / "typescript")
    npm(copy, "run", "build")
    return copy


def installed(package: Path, copy: Path) -> Path:
    """A copy of `package` with what its lock names."""
    _need_npm()
    shutil.copytree(package, copy, ignore=_LEFT_OUT)
    npm(copy, "ci", "--ignore-scripts", may_fail=True)
    return copy


def with_packages(folder: Path, *packages: str) -> Path:
    """`folder` with these packages, each with its version."""
    _need_npm()
    quiet = ("--no-audit", "--no-fund", "--no-save", "--legacy-peer-deps", "--ignore-scripts")
    npm(folder, "install", *quiet, *packages, may_fail=True)
    return folder


def npm(folder: Path, *arguments: str, may_fail: bool = False) -> None:
    """Run npm in `folder`; a failure that `may_fail` skips the test."""
    done = subprocess.run(
        [str(shutil.which("npm")), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_NPM_SECONDS,
        check=False,
    )
    if done.returncode and may_fail:
        lacks(f"npm that installs the packages: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stdout + done.stderr


def _need_npm() -> None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        lacks("Node with npm")
