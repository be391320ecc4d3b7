"""One writing process per SQLite outbox, enforced by a lock file beside it.

The lock is the kernel's (flock), so it goes with the process, however that ends. The file's text
tells others whom to talk to; only the lock itself decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from service.errors import OutboxBusyError, OutboxUnavailableError
from service.outbox.sqlite.disk import beside


def lock_path(database: Path) -> Path:
    """The lock file of an outbox."""
    return beside(database, ".lock")


@contextlib.contextmanager
def sole_writer(database: Path, *, socket: str | None = None) -> Iterator[None]:
    """Be the only writing process of `database` while inside.

    `socket` is where operator commands reach this process. Raises OutboxBusyError when another
    process is the writer, OutboxUnavailableError when the lock file can't be made or `database`
    has a second name (a hard link), under which another process could write it.
    """
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock_path(database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutboxUnavailableError(f"{lock_path(database)}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutboxBusyError(_busy_sentence(database)) from error
        if database.exists() and database.stat().st_nlink > 1:
            raise OutboxUnavailableError(
                f"{database} has a second name (a hard link); an outbox has exactly one. Remove it."
            )
        # A full disk must not keep the service from starting: the text only helps commands.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "socket": socket}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def writer_of(database: Path) -> dict[str, object] | None:
    """Who writes `database` now: `pid` and `socket`; None when nobody does."""
    try:
        descriptor = os.open(lock_path(database), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(ValueError, OSError):
            found = json.loads(os.pread(descriptor, 4096, 0))
            if isinstance(found, dict):
                return found
        return {}
    else:
        return None
    finally:
        os.close(descriptor)


def _busy_sentence(database: Path) -> str:
    pid = (writer_of(database) or {}).get("pid", "unknown")
    return (
        f"Another process (pid {pid}) serves {database}; an SQLite outbox has exactly one "
        "writing process."
    )
