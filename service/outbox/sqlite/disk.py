"""Where the outbox's files are, and whether their disk has room for new events.

Accepted events still have to be claimed, settled and purged, and each of these writes. New events
must not take that room. A symbolic link to the outbox's file stands for the file itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

HEADROOM_BYTES = 16 * 1024 * 1024  # what moving a full write-ahead log adds to the database
_HEADROOM_SHARE = 1 / 3
_CHECK_SECONDS = 0.25


def beside(database: Path, ending: str) -> Path:
    """The file beside `database` whose name ends in `ending`."""
    real = database.resolve()
    return real.with_name(real.name + ending)


class Disk:
    """The file system that holds `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checked_at = -_CHECK_SECONDS
        self._short = False

    def is_short(self) -> bool:
        """Whether less than 16 MiB, or a third of a small disk, is left; up to 0.25 s old."""
        now = time.monotonic()
        if now - self._checked_at >= _CHECK_SECONDS:
            self._checked_at = now
            with contextlib.suppress(OSError):
                disk = os.statvfs(self._folder)
                headroom = min(HEADROOM_BYTES, disk.f_blocks * disk.f_frsize * _HEADROOM_SHARE)
                self._short = disk.f_bavail * disk.f_frsize < headroom
        return self._short
