"""The write-ahead log's file: its room, its syncs, and copying it into the database.

Accepted events have to be claimed and settled even on a full disk, so the log gets its blocks
before they are needed. SQLite drops an error of the sync with which its own checkpoint begins; so
that checkpoint is off on every connection, and the service syncs the log by a descriptor of its own
before each copy. The invariants: nothing here changes the content of the log, and no page is copied
into the database before the log's frames are known to be on the disk. SQLite stops reading a log at
the first invalid frame, so the file may be longer than its content
(https://sqlite.org/walformat.html).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.sqlite.file.connection import connect_read_only, connect_writer
from inngest_outbox.outbox.sqlite.file.disk import beside

CHECKPOINT_FRAMES = 3000
# The pages after which the log is copied, and a thousand for claims and settlements. One page of
# the log's index (-shm) covers as many; on a full disk the index could not grow.
PREALLOCATED_BYTES = 16 * 1024 * 1024
_AGAIN_FRAMES = 1000
_DISK_SHARE = 1 / 8
_PIECE_BYTES = 1 << 20
_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_PAGE_SIZE, _SALTS, _FRAME_SALTS = slice(8, 12), slice(16, 24), 8


class WriteAheadLog:
    """The write-ahead log of the database at `path`.

    Methods with a `connection` take the writing one and run on its thread between transactions.
    `is_unmarked` says that the log was begun again since its file's mark was written.
    """

    def __init__(self, path: Path) -> None:
        self._path = beside(path, "-wal")
        self._descriptor: int | None = None
        self._salts = b""
        self._wanted_frames = CHECKPOINT_FRAMES
        self.is_unmarked = True

    @property
    def size(self) -> int:
        """Bytes of the file, 0 without one."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    @property
    def has_content(self) -> bool:
        """True if the file begins as a log does."""
        return _has_content(self._path)

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
        """True if the file is larger than its preallocated size."""
        return self.size > self.preallocated_bytes

    @property
    def lacks_room(self) -> bool:
        """True if the file is smaller than its preallocated size."""
        return self.size < self.preallocated_bytes

    def attach(self, connection: sqlite3.Connection) -> None:
        """Open the descriptor that syncs, before this process writes a frame.

        A descriptor that is opened later may miss an error that another one was told.
        """
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()  # makes the file
        if self._descriptor is not None and _is_at(self._descriptor, self._path):
            return
        self.detach()
        with _disk_faults():
            self._descriptor = os.open(self._path, os.O_RDWR)

    def detach(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def look(self) -> bool:
        """True if the log is to be copied into the database; after each commit."""
        file = self._attached()
        header = os.pread(file, _HEADER_BYTES, 0)
        salts = header[_SALTS]
        if salts != self._salts:
            self._salts, self._wanted_frames, self.is_unmarked = salts, CHECKPOINT_FRAMES, True
        frame_bytes = _FRAME_HEADER_BYTES + int.from_bytes(header[_PAGE_SIZE])
        at = _HEADER_BYTES + (self._wanted_frames - 1) * frame_bytes + _FRAME_SALTS
        return header.startswith(_MAGIC) and os.pread(file, len(salts), at) == salts

    def preallocate(self, connection: sqlite3.Connection) -> None:
        """Allocate blocks for `preallocated_bytes`, as far as the disk has room."""
        del connection
        if sys.platform == "darwin":  # this system has no posix_fallocate
            return
        with contextlib.suppress(OSError):
            os.posix_fallocate(self._attached(), 0, self.preallocated_bytes)

    def fill(self, connection: sqlite3.Connection, at: int) -> int:
        """Write zeros over the piece at `at` if it is empty; does not wait for the disk.

        Returns where the next piece begins, `at` itself at the end of the file. A sync of room that
        is only allocated takes up to twice as long as that of written: the file system must note in
        its journal that the room is written now.
        """
        if sys.platform == "darwin" or at >= self.size:  # nothing is preallocated there
            return at
        with contextlib.suppress(OSError, sqlite3.Error), _alone(connection):
            file = self._attached()
            piece = os.pread(file, _PIECE_BYTES, at)
            zeros = bytes(len(piece))
            if piece == zeros:
                os.pwrite(file, zeros, at)
                # Begins to write the piece to the disk, so that no commit's sync has to.
                os.posix_fadvise(file, at, len(piece), os.POSIX_FADV_DONTNEED)
            at += len(piece)
        return at

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        """Copy the log into the database, as far as readers allow.

        Raises OutboxUnavailableError and sqlite3.Error when the disk fails.
        """
        with _disk_faults():
            _sync(self._attached())
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._wanted_frames += _AGAIN_FRAMES  # it begins again unless a reader holds it

    def truncate(self, connection: sqlite3.Connection) -> bool:
        """Copy the whole log into the database, sync, empty the file and preallocate it again.

        Returns False when a reader prevents it; the file then stays as it is. Raises as
        `checkpoint`.
        """
        is_empty = self.empty(connection)
        self.preallocate(connection)
        return is_empty

    def empty(self, connection: sqlite3.Connection) -> bool:
        """As `truncate`, without room for a next log."""
        with _disk_faults():
            _sync(self._attached())
        [(patience,)] = connection.execute("PRAGMA busy_timeout").fetchall()
        connection.execute("PRAGMA busy_timeout = 0").fetchall()  # do not wait for a reader
        try:
            [(busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {patience}").fetchall()
        return not busy

    def make_durable(self) -> None:
        """Write the log's content again, which the kernel still has in memory, and sync it.

        After it no frame of an earlier process, or from before an I/O error, is missing on the
        disk. Raises OutboxUnavailableError when the disk fails again.
        """
        with _disk_faults():
            file = self._attached()
            with contextlib.suppress(OSError):
                _sync(file)  # tells the error that made this necessary, once
            at = 0
            while chunk := os.pread(file, _PIECE_BYTES, at):
                at += os.pwrite(file, chunk, at)
            _sync(file)

    def renew(self, connection: sqlite3.Connection) -> None:
        """Start a log that can be trusted after an I/O error in the old one.

        First the old log is written again: a power cut during the checkpoint leaves a half-updated
        database, which a log with a hole can't repair. Raises OutboxUnavailableError when the disk
        fails again, or when a reader keeps the old log.
        """
        self.make_durable()
        if not self.truncate(connection):
            raise OutboxUnavailableError(
                "After an I/O error the outbox waits until a reader of its file, such as a "
                "backup, ends."
            )

    def _attached(self) -> int:
        if self._descriptor is None:
            raise OutboxUnavailableError
        return self._descriptor


@contextlib.contextmanager
def open_alone(path: Path, *, is_alone: bool = True) -> Iterator[sqlite3.Connection]:
    """The writing connection of a command, which blocks; an earlier log is on the disk first.

    At the end the log is copied into the database, synced, and emptied. After an error it stays as
    it is: SQLite copies a log when the last connection closes, unless that one only reads. Not
    `is_alone`: another process serves the file, and copies its log itself. Raises sqlite3.Error and
    OutboxUnavailableError.
    """
    log = WriteAheadLog(path)
    with contextlib.ExitStack() as last, connect_writer(path) as connection:
        log.attach(connection)
        last.callback(log.detach)
        guard = last.enter_context(connect_read_only(path))
        guard.execute("SELECT count(*) FROM sqlite_master").fetchall()
        if is_alone and log.has_content:
            log.make_durable()
        yield connection
        if is_alone:
            log.empty(connection)
            guard.close()


def refuse_orphaned_log(database: Path) -> None:
    """Raise OutboxUnavailableError when the file is missing or empty beside a log with content.

    SQLite would take it for a new database and delete the log.
    """
    if database.exists() and database.stat().st_size:
        return
    if _has_content(beside(database, "-wal")):
        raise OutboxUnavailableError(
            f"{database} is missing or empty, but the log beside it has content. Put the "
            "database back; to begin a new outbox, move the -wal file away."
        )


def _has_content(log: Path) -> bool:
    try:
        with log.open("rb") as file:
            return file.read(len(_MAGIC[0])) in _MAGIC
    except OSError:
        return False


def _sync(file: int) -> None:
    """Wait until the file is on the disk."""
    if hasattr(fcntl, "F_FULLFSYNC"):  # elsewhere than on macOS fdatasync flushes the drive
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(file)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there, ours = path.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


@contextlib.contextmanager
def _disk_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutboxUnavailableError(f"The disk of the outbox failed: {error.strerror}.") from error


@contextlib.contextmanager
def _alone(connection: sqlite3.Connection) -> Iterator[None]:
    """While it is open, no other connection writes to the log, such as a person's shell."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
