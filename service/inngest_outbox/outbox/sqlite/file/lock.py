"""One writing process per SQLite outbox, enforced by a lock on the database file itself.

The lock is on a byte far beyond the file's end and belongs to the open file. So it holds under
every name and every mount of the file, and ends with the process. A second file beside the database
tells commands which process to talk to; it decides nothing. The invariant: the lock's descriptor is
opened before SQLite opens the file and closed after SQLite has closed it, because a close drops the
locks that SQLite holds in this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inngest_outbox.config.outbox_url import file_fault
from inngest_outbox.errors import OutboxBusyError, OutboxUnavailableError
from inngest_outbox.outbox.sqlite.file.disk import beside, make_folder
from inngest_outbox.outbox.sqlite.file.log import refuse_orphaned_log

_LOCK_BYTE = 1 << 62
_WANTED_BYTE = _LOCK_BYTE + 1
_FLOCK = "hhqqi"  # struct flock: type, whence, start, length, pid
_RETRY_SECONDS = 0.05
# A process may end between two looks at it.
_LEAST_SECONDS = 2 * _RETRY_SECONDS
_NOTE_BYTES = 512
_PF_EXITING = 0x4
_SIGKILL_PENDING = 1 << 8
_FLAGS = 6
_PENDING = re.compile(rb"^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$", re.MULTILINE)
_REPLACED = (
    "The outbox's file was replaced or removed while it was served. Stop the service, put the file "
    "back, start again."
)


@dataclass(frozen=True, slots=True)
class LockTimings:
    """The patience of a start: for a killed process to be gone, for a command to make way.

    A process that has the lock and no note is about to write it, or to let go.
    """

    dead_holder_seconds: float = 5.0
    command_seconds: float = 30.0
    unknown_holder_seconds: float = 2.0


class WriterLock:
    """The right to write one outbox, while `sole_writer` is open."""

    def __init__(self, database: Path, descriptor: int, *, socket: str | None) -> None:
        self._database = database
        self._descriptor = descriptor
        self._note = _Note(database, socket)

    @property
    def fault(self) -> str | None:
        """Why this is no longer the outbox's file, None while it is. Two system calls."""
        try:
            there = self._database.stat()
        except OSError:
            return _REPLACED
        ours = os.fstat(self._descriptor)
        same = (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
        return None if same else _REPLACED

    @property
    def is_wanted(self) -> bool:
        """True if a service waits for this process to release the file."""
        return _is_locked(self._descriptor, _WANTED_BYTE)

    def keep_note(self) -> None:
        """Write the file for commands again if it was removed."""
        self._note.keep()

    def close(self) -> None:
        """Release the file."""
        self._note.close()
        os.close(self._descriptor)


class _Note:
    """The file beside the database that names the process that holds the outbox, and is locked."""

    def __init__(self, database: Path, socket: str | None) -> None:
        self._path = lock_path(database)
        self._who = {"pid": os.getpid(), "socket": socket}
        self._descriptor: int | None = None

    def keep(self) -> None:
        """Make and lock the file. Without it, on a full disk say, the service starts too."""
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink:
            return
        self.close()
        with contextlib.suppress(OSError):
            flags = os.O_RDWR | os.O_CREAT
            self._descriptor = os.open(self._path, flags, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One length for all contents: writing over it needs no room on the disk.
            text = json.dumps(self._who).ljust(_NOTE_BYTES)
            os.pwrite(self._descriptor, text.encode(), 0)
            os.ftruncate(self._descriptor, len(text))

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read(descriptor: int) -> dict[str, object]:
    with contextlib.suppress(ValueError, OSError):
        found = json.loads(os.pread(descriptor, 4096, 0))
        if isinstance(found, dict):
            return found
    return {}


def lock_path(database: Path) -> Path:
    """The file that says who writes an outbox."""
    return beside(database, ".lock")


@contextlib.contextmanager
def sole_writer(
    database: Path, *, socket: str | None = None, timings: LockTimings | None = None
) -> Iterator[WriterLock]:
    """Be the only writing process of `database` while inside; makes an empty file if there is none.

    `socket` is where operator commands reach this process. A process with a socket is a service; a
    command, which has none, makes way for it. Raises OutboxBusyError when another process is the
    writer, OutboxUnavailableError when the file can't be opened, has a second name (a hard link) or
    has lost its content.
    """
    try:
        make_folder(database.parent)
        refuse_orphaned_log(database)
        descriptor = os.open(database, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise OutboxUnavailableError(file_fault(database, error)) from error
    lock = WriterLock(database, descriptor, socket=socket)
    try:
        _wait_for_lock(database, descriptor, timings or LockTimings(), is_service=bool(socket))
        if os.fstat(descriptor).st_nlink > 1:
            raise OutboxUnavailableError(
                f"{database} has a second name (a hard link); an outbox has exactly one. Remove it."
            )
        if lock.fault:
            raise OutboxBusyError(f"{database} was replaced just now. Try again.")
        lock.keep_note()
        yield lock
    finally:
        lock.close()


def writer_of(database: Path) -> dict[str, object] | None:
    """The process that writes `database` now: its `pid` and `socket`; None when none is known."""
    try:
        descriptor = os.open(lock_path(database), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _wait_for_lock(
    database: Path, descriptor: int, timings: LockTimings, *, is_service: bool
) -> None:
    pid, since = None, time.monotonic()
    while not _try_lock(descriptor, _LOCK_BYTE):
        holder = writer_of(database) or {}
        if holder.get("pid") != pid:
            pid, since = holder.get("pid"), time.monotonic()
        patience = _LEAST_SECONDS
        if pid is None:
            patience = timings.unknown_holder_seconds
        elif is_ending(pid):
            patience = timings.dead_holder_seconds
        elif is_service and holder.get("socket") is None:
            _try_lock(descriptor, _WANTED_BYTE)
            patience = timings.command_seconds
        if time.monotonic() - since >= patience:
            raise OutboxBusyError(
                f"Another process (pid {'unknown' if pid is None else pid}) serves {database}; an "
                "SQLite outbox has exactly one writing process."
            )
        time.sleep(_RETRY_SECONDS)
    _unlock(descriptor, _WANTED_BYTE)


def _try_lock(descriptor: int, byte: int) -> bool:
    try:
        if hasattr(fcntl, "F_OFD_SETLK"):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, byte))
        elif byte == _LOCK_BYTE:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock(descriptor: int, byte: int) -> None:
    if hasattr(fcntl, "F_OFD_SETLK"):
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, byte))


def _is_locked(descriptor: int, byte: int) -> bool:
    """True if another open file holds the byte."""
    if not hasattr(fcntl, "F_OFD_GETLK"):
        return False
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, byte))
    kind: int = struct.unpack(_FLOCK, found[: struct.calcsize(_FLOCK)])[0]
    return kind != fcntl.F_UNLCK


def _flock(kind: int, byte: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0) + bytes(4)


def is_ending(pid: object) -> bool:
    """True if the process was killed and the kernel has not cleared it away yet."""
    if not isinstance(pid, int):
        return False
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    is_killed = any(int(mask, 16) & _SIGKILL_PENDING for mask in _PENDING.findall(status))
    return is_killed or fields[0] in b"ZX" or bool(int(fields[_FLAGS]) & _PF_EXITING)
