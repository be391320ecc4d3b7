"""Whether the database lies where it outlives its container and the machine's next start."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

MOUNTS = Path("/proc/self/mountinfo")
# Docker names a volume that was given no name by 64 hexadecimal digits.
_ANONYMOUS = re.compile(r"/volumes/[0-9a-f]{64}/_data(/|$)")
_ROOT, _POINT = 3, 4  # fields of a line
_OCTAL = re.compile(r"\\([0-7]{3})")


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
