"""Copying what can be read of a damaged SQLite outbox to a new file.

A page that can't be read is divided until the unreadable rows are found. Where only the event of a
row can be read, and not its state, it becomes pending: it may be delivered a second time, under the
same id. It stays delayed until its time where at least that can be read.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from inngest_outbox.config.outbox_url import sqlite_url
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.move.transfer import TransferRow
from inngest_outbox.outbox.schema import migrate
from inngest_outbox.outbox.sqlite.file.connection import SQL, connect_read_only
from inngest_outbox.outbox.sqlite.file.disk import sync_to_disk
from inngest_outbox.outbox.sqlite.file.faults import (
    FaultScope,
    scope_of,
    unavailable,
    unavailable_if_sqlite_fails,
)
from inngest_outbox.outbox.sqlite.file.lock import sole_writer
from inngest_outbox.outbox.sqlite.file.transfer import (
    SqliteTransferEvents,
    SqliteTransferMetadata,
    open_sqlite_transfer,
    transfer_row,
)

_PAGE = 500
_UNREADABLE = (sqlite3.Error, ValueError)


class RecoveredFile(NamedTuple):
    """The numbers of rows that were copied, of those without their state, and of those lost."""

    rows: int
    without_state: int
    lost: int


class _Copy:
    """One recovery under way."""

    def __init__(
        self, source: sqlite3.Connection, target: SqliteTransferEvents, file: Path
    ) -> None:
        self._source = source
        self._file = file
        self._events = SqliteTransferEvents(source)
        self._target = target
        self.rows = self.without_state = self.lost = 0

    def copy(self, after: int, upto: int) -> None:
        """Copy the rows after `after` up to `upto`, as far as they can be read."""
        with contextlib.suppress(*_UNREADABLE):
            values = {"after": after, "upto": upto}
            eventless = self._source.execute(SQL["EVENTLESS"], values).fetchall()
            self._write(self._events.page(after, _PAGE, upto))
            self.lost += len(eventless)
            return
        if upto - after > 1:
            middle = (after + upto) // 2
            self.copy(after, middle)
            self.copy(middle, upto)
        else:
            self._copy_alone(upto)

    def _copy_alone(self, seq: int) -> None:
        for name in ("TRANSFER_STATELESS", "TRANSFER_ALONE"):
            with contextlib.suppress(*_UNREADABLE):
                rows = self._source.execute(SQL[name], {"seq": seq}).fetchall()
                self._write([transfer_row(row) for row in rows])
                self.without_state += len(rows)
                return
        self.lost += 1

    def _write(self, events: list[TransferRow]) -> None:
        payloads = self._events.payloads([event.id for event in events])
        with _fails_as_a_whole(self._file):
            self._target.write(events, payloads)
        self.rows += len(events)


def recover(source: Path, target: Path, progress: Callable[[int, int], None]) -> RecoveredFile:
    """Copy what can be read of the outbox `source` to the new file `target`. Blocks.

    `progress` gets the rows read and the rows in all. Changes nothing in `source`; `target` appears
    when it is complete. Raises OutboxBusyError when a service holds the file, and
    OutboxUnavailableError when `target` exists or can't be written, or when nothing in `source` can
    be read.
    """
    if target.exists():
        raise OutboxUnavailableError(f"{target} exists already; a recovery replaces nothing.")
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        copy = _copy(source, partial, progress)
        sync_to_disk(partial)
        partial.rename(target)  # not a link: the disk may be one without any
        sync_to_disk(target.parent)
    finally:
        for ending in ("", "-wal", "-shm", ".lock"):
            Path(f"{partial}{ending}").unlink(missing_ok=True)
    return RecoveredFile(copy.rows, copy.without_state, copy.lost)


def _copy(source: Path, target: Path, progress: Callable[[int, int], None]) -> _Copy:
    with sole_writer(source), unavailable_if_sqlite_fails(), connect_read_only(source) as reading:
        last = _last_seq(reading)
        migrate(sqlite_url(target))
        with open_sqlite_transfer(target) as writing:
            copy = _Copy(reading, writing.events, target)
            for after in range(0, last, _PAGE):
                copy.copy(after, min(last, after + _PAGE))
                progress(min(last, after + _PAGE), last)
            with contextlib.suppress(*_UNREADABLE):
                metadata = SqliteTransferMetadata(reading).read()
                with _fails_as_a_whole(target):
                    writing.metadata.write(metadata)
    return copy


@contextlib.contextmanager
def _fails_as_a_whole(file: Path) -> Iterator[None]:
    """Turn an error of the disk of the new `file`, no row's, into OutboxUnavailableError."""
    try:
        yield
    except sqlite3.Error as error:
        if scope_of(error) is FaultScope.ITEM:
            raise
        raise unavailable(error, file) from error


def _last_seq(reading: sqlite3.Connection) -> int:
    found: list[int] = []
    fault: sqlite3.Error | None = None
    for table in ("outbox", "outbox_ready", "outbox_claims", "outbox_sent", "outbox_done"):
        try:
            [(seq,)] = reading.execute(f"SELECT max(seq) FROM {table}").fetchall()
            found.append(seq or 0)
        except sqlite3.Error as error:
            fault = error
    if not found:
        raise OutboxUnavailableError(f"Nothing in the file can be read: {fault}. Restore a backup.")
    return max(found)
