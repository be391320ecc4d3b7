"""A place for files of tests that need no disk."""

from __future__ import annotations

from pathlib import Path


def memory_folder() -> str | None:
    """A folder in memory; None where the system has none."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
