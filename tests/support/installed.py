"""The program in a folder of a test's own, where a new version can be installed over it."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install(folder: Path) -> dict[str, str]:
    """Copy the program to `folder`; the variables with which Python runs it from there."""
    for part in ("service", "migrations"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return {"PYTHONPATH": str(folder / "service")}


def add_migration(folder: Path, statements: str, number: int = 1) -> None:
    """Install a version that brings the `number`th migration after the program's own."""
    for files in (folder / "migrations").iterdir():
        last = max(int(path.name[:4]) for path in (ROOT / "migrations" / files.name).glob("*.sql"))
        (files / f"{last + number:04}_more.sql").write_text(statements)
