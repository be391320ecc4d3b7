"""Which files this process has open."""

from __future__ import annotations

import contextlib
from pathlib import Path


def open_files(beginning: Path | str = "") -> list[str]:
    """The names behind its descriptors that begin so: a file and those beside it, or a folder's."""
    found = []
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(one.readlink()))
    return [name for name in found if name.startswith(str(beginning))]
