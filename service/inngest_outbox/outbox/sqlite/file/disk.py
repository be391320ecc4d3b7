"""The disk of the outbox's files: where they are, its room for new events, and how long it lasts.

Accepted events still have to be claimed, settled and purged, and each of these writes. New events
must not take that room. A symbolic link to the outbox's file stands for the file itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path, PurePosixPath

HEADROOM_BYTES = 16 * 1024 * 1024  # what moving a full write-ahead log adds to the database
_HEADROOM_SHARE = 1 / 3
_CHECK_SECONDS = 0.25
MOUNTS = Path("/proc/self/mountinfo")
# Docker names a volume that was given no name by 64 hexadecimal digits.
_ANONYMOUS = re.compile(r"/volumes/[0-9a-f]{64}/_data(/|$)")
_ROOT, _POINT = 3, 4  # fields of a line
_OCTAL = re.compile(r"\\([0-7]{3})")


def beside(database: Path, ending: str) -> Path:
    """The file beside `database` whose name ends in `ending`."""
    real = database.resolve()
    return real.with_name(real.name + ending)


def make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, and sync the entry of each in its parent."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_to_disk(one.parent)


def sync_to_disk(path: Path) -> None:
    """Sync a file, or the entries of a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Disk:
    """The file system that holds `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checked_at = -_CHECK_SECONDS
        self._short = False

    def is_short(self) -> bool:
        """True if less than 16 MiB, or a third of a small disk, is left; up to 0.25 s old."""
        now = time.monotonic()
        if now - self._checked_at >= _CHECK_SECONDS:
            self._checked_at = now
            with contextlib.suppress(OSError):
                disk = os.statvfs(self._folder)
                headroom = min(HEADROOM_BYTES, disk.f_blocks * disk.f_frsize * _HEADROOM_SHARE)
                self._short = disk.f_bavail * disk.f_frsize < headroom
        return self._short


def loss_of_volume(database: Path) -> str | None:
    """A sentence that says how the events may get lost; None on an ordinary disk.

    None also where the system doesn't list its mounts.
    """
    try:
        mounts = os.fsdecode(MOUNTS.read_bytes())
    except OSError:
        return None
    return fault_of_mount(PurePosixPath(database.resolve()), mounts)


def fault_of_mount(database: PurePosixPath, mounts: str) -> str | None:
    """As `loss_of_volume`, from the text of /proc/self/mountinfo."""
    found = (_parsed(line) for line in mounts.split("\n"))
    over = [mount for mount in found if mount and database.is_relative_to(mount[0])]
    if not over:
        return None
    # Of two mounts at one point the later one counts.
    _, root, kind = max(reversed(over), key=lambda mount: mount[0])
    if kind in ("tmpfs", "ramfs"):
        return "The outbox is in memory: its events are lost at the machine's next start."
    if kind == "overlay":
        return "The outbox is in the container: its events are lost with it. Mount a named volume."
    if _ANONYMOUS.search(root):
        return "The outbox is on an anonymous volume: its events may be lost. Mount a named volume."
    return None


def _parsed(line: str) -> tuple[PurePosixPath, str, str] | None:
    """Mount point, root within the file system, and kind of file system."""
    left, _, right = line.partition(" - ")
    fields, kind = left.split(" "), right.split(" ")[0]
    if not fields[_POINT:]:
        return None
    return PurePosixPath(_plain(fields[_POINT])), _plain(fields[_ROOT]), kind


def _plain(field: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), field)
