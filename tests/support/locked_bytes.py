"""Which bytes of a file are locked, and so who waits for the right to write an outbox."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

LOCK, WANTED = 2**62, 2**62 + 1


def locked(path: Path, *, start: int = 0, length: int = 0) -> list[int]:
    """The first byte that another open file has locked there, and how many."""
    with path.open("r+b") as file:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0) + bytes(4)
        found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked)
    kind, _, first, count, _ = struct.unpack("hhqqi", found[:28])
    return [] if kind == fcntl.F_UNLCK else [first, count]
