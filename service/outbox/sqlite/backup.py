"""A consistent copy of an SQLite outbox that may be served meanwhile.

Reads one snapshot through a connection that can neither write nor checkpoint; the write-ahead log
can't be reset until the copy is done, but nobody waits for it. The copy appears under its name only
when it is whole, synced and checked.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.faults import unavailable_if_sqlite_fails

_PAGES = 2000
_BUSY_SECONDS = 5.0
_CHECK = "PRAGMA quick_check(1)"


def back_up(source: Path, target: Path, progress: Callable[[int, int], None]) -> int:
    """Copy the outbox `source` to the new file `target`; returns its size in bytes.

    `progress` is told pages copied and pages in all. Blocks. A copy that fails leaves nothing.
    Raises OutboxUnavailableError, also when there is a `target`.
    """
    if target.exists():
        raise OutboxUnavailableError(f"{target} is there already; a backup replaces nothing.")
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        # Payloads are personal: nobody else may read the copy.
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _copy(source, partial, progress)
        _sync(partial)
        os.link(partial, target)
    except OSError as error:
        raise OutboxUnavailableError(f"{target}: {error.strerror}") from error
    finally:
        for leftover in (partial, *(Path(f"{partial}{end}") for end in ("-wal", "-shm"))):
            leftover.unlink(missing_ok=True)
    _sync(target.parent)
    return target.stat().st_size


def _copy(source: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    with (
        unavailable_if_sqlite_fails(),
        _snapshot(source) as reading,
        contextlib.closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(
            writing,
            pages=_PAGES,
            progress=lambda _, left, total: progress(total - left, total),
            sleep=0,
        )
        # The copy shall be one file, whatever opens it next.
        writing.execute("PRAGMA journal_mode = DELETE")
        [(verdict,)] = writing.execute(_CHECK).fetchall()
    if verdict != "ok":
        raise OutboxUnavailableError(f"The copy is damaged, so the outbox may be: {verdict}")


@contextlib.contextmanager
def _snapshot(source: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose reads all see this moment: without one, writes would restart the copy."""
    address = f"file:{quote(str(source))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
    with contextlib.closing(connection):
        connection.execute("BEGIN")
        connection.execute("SELECT single FROM outbox_delivery").fetchall()
        yield connection


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
