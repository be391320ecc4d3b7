"""The write-ahead log's file: the room set aside in it, and copying it into the database.

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

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.disk import beside

# The 3,000 pages after which SQLite checkpoints the log, and a thousand for claims and settlements.
# As many as one page of the log's index (-shm) knows: that could not grow either.
PREALLOCATED_BYTES = 16 * 1024 * 1024
_DISK_SHARE = 1 / 8
_CHUNK_BYTES = 1 << 20
_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


class WriteAheadLog:
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
    def preallocated_bytes(self) -> int:
        """How large the file is kept: 16 MiB, or an eighth of a small disk."""
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return PREALLOCATED_BYTES
        return min(PREALLOCATED_BYTES, int(disk.f_blocks * disk.f_frsize * _DISK_SHARE))

    @property
    def is_large(self) -> bool:
        """Whether the file has more than its preallocated room."""
        return self.size > self.preallocated_bytes

    @property
    def lacks_room(self) -> bool:
        """Whether the file has less than its room: the disk was full, or others truncated it."""
        return self.size < self.preallocated_bytes

    def preallocate(self, connection: sqlite3.Connection) -> None:
        """Give the file blocks for `preallocated_bytes`, as far as the disk has them."""
        del connection
        if sys.platform == "darwin":  # it has no posix_fallocate
            return
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_RDWR)
            try:
                os.posix_fallocate(file, 0, self.preallocated_bytes)
            finally:
                os.close(file)

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        """Copy what the log holds into the database, as far as readers allow."""
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def truncate(self, connection: sqlite3.Connection) -> bool:
        """Copy all that the log holds into the database, sync that, and empty the file.

        Then preallocates it again. Returns False beside a reader: the file stays as it is.
        """
        [(patience,)] = connection.execute("PRAGMA busy_timeout").fetchall()
        connection.execute("PRAGMA busy_timeout = 0").fetchall()  # nobody waits for a reader
        try:
            [(busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {patience}").fetchall()
        self.preallocate(connection)
        return not busy

    def renew(self, connection: sqlite3.Connection) -> bool:
        """Start a log that can be trusted after an I/O error in the old one.

        First the old one is written again: a power cut in the checkpoint would leave a database of
        two times, and a log with a hole could not mend it. Raises OutboxUnavailableError when the
        disk fails again, and beside a reader that keeps the old log.
        """
        try:
            self._write_again()
        except OSError as error:
            raise OutboxUnavailableError(f"The disk of the outbox failed: {error}") from error
        if not self.truncate(connection):
            raise OutboxUnavailableError(
                "After an I/O error the outbox waits for a reader of its file (a backup?) to end."
            )
        return True

    def _write_again(self) -> None:
        """Write what the log holds, as the kernel still has it, and sync it."""
        file = os.open(self._path, os.O_RDWR)
        try:
            at = 0
            while chunk := os.pread(file, _CHUNK_BYTES, at):
                at += os.pwrite(file, chunk, at)
            os.fsync(file)
        finally:
            os.close(file)


def refuse_orphaned_log(database: Path) -> None:
    """Raise OutboxUnavailableError when the file is missing or empty beside a log with content.

    SQLite would take it for a new database and delete the log.
    """
    if database.exists() and database.stat().st_size:
        return
    with contextlib.suppress(OSError), beside(database, "-wal").open("rb") as log:
        if log.read(4) in _MAGIC:
            raise OutboxUnavailableError(
                f"{database} is missing or empty, but the log beside it has content. Put the "
                "database back; to begin a new outbox, move the -wal file away."
            )
