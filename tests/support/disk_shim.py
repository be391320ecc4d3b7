"""A shim between a process and its disk: syncs that fail, and a record of what was written."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.support.neighbours import lacks

SOURCE = Path(__file__).with_suffix(".c")
_HEAD = struct.Struct("=cIQQI")


def find_compiler() -> str | None:
    """The machine's compiler of C, None where it has none."""
    return shutil.which("cc")


@functools.cache
def _built() -> Path | None:
    compiler = find_compiler()
    if compiler is None:
        return None
    folder = tempfile.mkdtemp(prefix="disk-shim-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = Path(folder) / "disk_shim.so"
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"],
        check=False,
        capture_output=True,
    )
    return library if built.returncode == 0 else None


def preload(module: str) -> None:
    """Run the command that `module` is again with the shim preloaded, unless it is; then exit."""
    if "disk_shim" in os.environ.get("LD_PRELOAD", ""):
        return
    library = _built()
    if library is None:
        sys.exit("The shim needs a compiler of C.")
    command = [sys.executable, "-m", module, *sys.argv[1:]]
    environment = os.environ | {"LD_PRELOAD": str(library)}
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)


class Operation(NamedTuple):
    """One change of a file or folder.

    Its kind as `disk_shim.c` names it, where, and what was written. `inode` says which file it is,
    also when it has lost its name; one that is created may get the inode of one that is gone.
    """

    operation: str
    path: str
    offset: int
    data: bytes
    inode: int


def read_record(record: Path) -> list[Operation]:
    """What the shim recorded, in order."""
    whole = record.read_bytes()
    found, at = [], 0
    while at + _HEAD.size <= len(whole):
        operation, path_size, offset, inode, size = _HEAD.unpack_from(whole, at)
        at += _HEAD.size
        path, at = whole[at : at + path_size].decode(), at + path_size
        data = whole[at : at + size]
        found.append(Operation(operation.decode(), path, offset, data, inode))
        at += size
    return found


class DiskShim:
    """The environment of a process whose files in `folder` go through the shim."""

    def __init__(self, folder: Path, *, record: Path | None = None) -> None:
        library = _built()
        if library is None:
            lacks("compiler of C")
        self._faults = folder.parent / f"{folder.name}.faults"
        self.environment = {
            "LD_PRELOAD": str(library),
            "DISK_SHIM_ROOT": str(folder.resolve()),
            "DISK_SHIM_FAULTS": str(self._faults),
        }
        if record:
            self.environment["DISK_SHIM_RECORD"] = str(record)

    def fail_next_sync(self, ending: str) -> None:
        """Let the next sync of a file whose path has this ending fail with EIO."""
        partial = self._faults.with_suffix(".new")
        partial.write_text(ending)
        partial.rename(self._faults)

    @property
    def has_failed(self) -> bool:
        """Whether the sync that was to fail has failed."""
        return not self._faults.exists()
