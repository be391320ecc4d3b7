"""The write-ahead log's file: the room set aside in it, and moving it into the database.

What was accepted has to be claimed and settled also on a disk that others have filled, so the log
gets its blocks before they are needed. The invariant: nothing here changes what the log holds.
SQLite ends reading a log at the first frame that is not valid, so the file may be longer than its
content (https://sqlite.org/walformat.html).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path

from service.outbox.sqlite.disk import beside

# The 3,000 pages after which SQLite moves the log into the database, and a thousand for claims and
# settlements. As many as one page of the log's index (-shm) knows: that could not grow either.
RESERVED_BYTES = 16 * 1024 * 1024
_DISK_SHARE = 1 / 8


class SqliteLog:
    """The write-ahead log of the database at `path`.

    The methods that take a connection, the writing one, run on its thread between transactions.
    """

    def __init__(self, path: Path) -> None:
        self._path = beside(path, "-wal")

    @property
    def size(self) -> int:
        """Bytes of the file, 0 without one."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    @property
    def reserved_bytes(self) -> int:
        """How large the file is kept: 16 MiB, or an eighth of a small disk."""
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return RESERVED_BYTES
        return min(RESERVED_BYTES, int(disk.f_blocks * disk.f_frsize * _DISK_SHARE))

    @property
    def is_large(self) -> bool:
        """Whether the file has more than its reserve."""
        return self.size > self.reserved_bytes

    @property
    def lacks_reserve(self) -> bool:
        """Whether the file has less than its reserve: the disk was full, or others cut it."""
        return self.size < self.reserved_bytes

    def reserve(self, connection: sqlite3.Connection) -> None:
        """Give the file blocks for `reserved_bytes`, as far as the disk has them."""
        del connection
        if sys.platform == "darwin":  # it has no posix_fallocate
            return
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_RDWR)
            try:
                os.posix_fallocate(file, 0, self.reserved_bytes)
            finally:
                os.close(file)

    def move(self, connection: sqlite3.Connection) -> None:
        """Copy what the log holds into the database, as far as readers allow."""
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def cut(self, connection: sqlite3.Connection) -> None:
        """Move the log, and give back what is above the reserve; nothing beside a reader."""
        [(patience,)] = connection.execute("PRAGMA busy_timeout").fetchall()
        connection.execute("PRAGMA busy_timeout = 0").fetchall()  # nobody waits for a reader
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {patience}").fetchall()
        self.reserve(connection)
