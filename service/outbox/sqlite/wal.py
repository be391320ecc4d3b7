"""The write-ahead log's file: the room set aside in it, and copying it into the database.

Accepted events have to be claimed and settled even on a full disk, so the log gets its blocks
before they are needed. The invariant: nothing here changes what the log holds. SQLite stops reading
a log at the first invalid frame, so the file may be longer than its content
(https://sqlite.org/walformat.html).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.disk import beside

# The 3,000 pages after which SQLite checkpoints the log, and a thousand for claims and settlements.
# One page of the log's index (-shm) covers as many; on a full disk the index could not grow.
PREALLOCATED_BYTES = 16 * 1024 * 1024
_DISK_SHARE = 1 / 8
_PIECE_BYTES = 1 << 20
_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


class WriteAheadLog:
    """The write-ahead log of the database at `path`.

    Methods with a `connection` take the writing one and run on its thread between transactions.
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
        """The preallocated size: 16 MiB, or an eighth of a small disk."""
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return PREALLOCATED_BYTES
        return min(PREALLOCATED_BYTES, int(disk.f_blocks * disk.f_frsize * _DISK_SHARE))

    @property
    def is_large(self) -> bool:
        """Whether the file is larger than its preallocated size."""
        return self.size > self.preallocated_bytes

    @property
    def lacks_room(self) -> bool:
        """Whether the file is smaller than its preallocated size."""
        return self.size < self.preallocated_bytes

    def preallocate(self, connection: sqlite3.Connection) -> None:
        """Allocate blocks for `preallocated_bytes`, as far as the disk has room."""
        del connection
        if sys.platform == "darwin":  # this system has no posix_fallocate
            return
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_RDWR)
            try:
                os.posix_fallocate(file, 0, self.preallocated_bytes)
            finally:
                os.close(file)

    def fill(self, connection: sqlite3.Connection, at: int) -> int:
        """Write zeros over the piece at `at` if it is empty; does not wait for the disk.

        Returns where the next piece begins, `at` itself at the end of the file. A sync of room that
        is only allocated takes up to twice as long as that of written: the file system must note in
        its journal that the room is written now.
        """
        if sys.platform == "darwin" or at >= self.size:  # nothing is preallocated there
            return at
        with (
            contextlib.suppress(OSError, sqlite3.Error),
            _alone(connection),
            self._path.open("r+b") as log,
        ):
            file = log.fileno()
            piece = os.pread(file, _PIECE_BYTES, at)
            zeros = bytes(len(piece))
            if piece == zeros:
                os.pwrite(file, zeros, at)
                # Begins to write the piece to the disk, so that no commit's sync has to.
                os.posix_fadvise(file, at, len(piece), os.POSIX_FADV_DONTNEED)
            at += len(piece)
        return at

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        """Copy the log into the database, as far as readers allow."""
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def truncate(self, connection: sqlite3.Connection) -> bool:
        """Copy the whole log into the database, sync, empty the file and preallocate it again.

        Returns False when a reader prevents it; the file then stays as it is.
        """
        [(patience,)] = connection.execute("PRAGMA busy_timeout").fetchall()
        connection.execute("PRAGMA busy_timeout = 0").fetchall()  # do not wait for a reader
        try:
            [(busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {patience}").fetchall()
        self.preallocate(connection)
        return not busy

    def renew(self, connection: sqlite3.Connection) -> bool:
        """Start a log that can be trusted after an I/O error in the old one.

        First the old log is written again: a power cut during the checkpoint leaves a half-updated
        database, which a log with a hole can't repair. Raises OutboxUnavailableError when the disk
        fails again, or when a reader keeps the old log.
        """
        try:
            self._write_again()
        except OSError as error:
            raise OutboxUnavailableError(f"The disk of the outbox failed: {error}") from error
        if not self.truncate(connection):
            raise OutboxUnavailableError(
                "After an I/O error the outbox waits until a reader of its file, such as a "
                "backup, ends."
            )
        return True

    def _write_again(self) -> None:
        """Write the log's content, which the kernel still has in memory, and sync it."""
        file = os.open(self._path, os.O_RDWR)
        try:
            at = 0
            while chunk := os.pread(file, _PIECE_BYTES, at):
                at += os.pwrite(file, chunk, at)
            os.fsync(file)
        finally:
            os.close(file)


@contextlib.contextmanager
def _alone(connection: sqlite3.Connection) -> Iterator[None]:
    """While it is open, no other connection writes to the log, such as a person's shell."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


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
