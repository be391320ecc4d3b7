"""A consistent copy of an SQLite outbox that may be served meanwhile.

Reads one snapshot through a connection that can neither write nor checkpoint; the write-ahead log
can't be reset until the copy is done, but no writer waits. The copy gets its name only when it is
complete, synced and checked. It is another file than its source, with an id of its own, and says
that it has no log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from inngest_outbox.config.outbox_url import file_fault
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.sqlite.file.connection import SQL, connect_read_only
from inngest_outbox.outbox.sqlite.file.faults import unavailable_if_sqlite_fails

_PAGES = 2000
_CHUNK_BYTES = 1 << 20
# https://sqlite.org/fileformat.html: the write and read version of the format.
_JOURNAL_KIND_AT, _ROLLBACK_JOURNAL = 18, b"\x01\x01"
_CHECK = "PRAGMA quick_check(1)"


def back_up(source: Path, target: Path, progress: Callable[[int, int], None]) -> int:
    """Copy the outbox `source` to the new file `target`; returns its size in bytes.

    `progress` gets the pages copied and the pages in all. Blocks. A copy that fails or is killed
    leaves nothing. The disk needs room for two copies. Raises OutboxUnavailableError, also when
    `target` exists.
    """
    if target.exists():
        raise OutboxUnavailableError(f"{target} exists already; a backup replaces nothing.")
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        # Payloads are personal: nobody else may read the copy.
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _copy(source, partial, descriptor, progress)
            _name(descriptor, target)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OutboxUnavailableError(file_fault(target, error)) from error
    finally:
        for ending in ("", "-wal", "-shm", "-journal"):
            Path(f"{partial}{ending}").unlink(missing_ok=True)
    return target.stat().st_size


def _name(descriptor: int, target: Path) -> None:
    """Name the finished copy `target`: the file is complete or absent."""
    folder = os.open(target.parent, os.O_RDONLY)
    nearly = target.with_name(f"{target.name}.named-{os.getpid()}")
    try:
        with _unnamed(target) as (named, path):
            with (
                open(descriptor, "rb", closefd=False) as reading,
                open(named, "wb", closefd=False) as writing,
            ):
                shutil.copyfileobj(reading, writing, _CHUNK_BYTES)
            os.fsync(named)
            # With a folder's descriptor this is linkat, which follows the link in /proc.
            os.link(path, nearly.name, dst_dir_fd=folder)
            _give_identity(nearly)
            os.fsync(named)
            os.link(nearly.name, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        try:
            os.fsync(folder)
        except OSError:
            # After a power cut the name might be gone, so this is no backup.
            target.unlink()
            raise
    finally:
        os.close(folder)
        nearly.unlink(missing_ok=True)


def _give_identity(copy: Path) -> None:
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(SQL["NEW_IDENTITY"])


@contextlib.contextmanager
def _unnamed(target: Path) -> Iterator[tuple[int, str]]:
    """A file without a name beside `target`, and a path to link it from.

    A file system that can't make one gets a file with a temporary name.
    """
    partial = target.with_name(f"{target.name}.whole-{os.getpid()}")
    try:
        descriptor = os.open(target.parent, os.O_TMPFILE | os.O_RDWR, 0o600)
        path = f"/proc/self/fd/{descriptor}"
    except (AttributeError, OSError):
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        path = str(partial)
    try:
        yield descriptor, path
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)


def _copy(
    source: Path, target: Path, descriptor: int, progress: Callable[[int, int], None]
) -> None:
    """Copy to the file at `target`, which is open as `descriptor` and loses its name at once."""
    with (
        unavailable_if_sqlite_fails(target),
        _snapshot(source) as reading,
        contextlib.closing(sqlite3.connect(target)) as writing,
    ):
        writing.execute("PRAGMA journal_mode = OFF")
        writing.execute("PRAGMA synchronous = OFF")  # it is synced when it gets a name
        target.unlink()
        reading.backup(
            writing,
            pages=_PAGES,
            progress=lambda _, left, total: progress(total - left, total),
        )
        [(found,)] = reading.execute(_CHECK).fetchall()
    if found != "ok":
        raise OutboxUnavailableError(
            f"The outbox is damaged: {found}. So would be its copy: run `outbox recover`."
        )
    # The copy must be one file: no write-ahead log, whatever opens it next.
    os.pwrite(descriptor, _ROLLBACK_JOURNAL, _JOURNAL_KIND_AT)


@contextlib.contextmanager
def _snapshot(source: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose reads all see one snapshot. Without it, writes would restart the copy."""
    with connect_read_only(source) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT single FROM outbox_delivery").fetchall()
        yield connection
