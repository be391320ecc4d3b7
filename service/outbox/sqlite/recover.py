"""Copying what can be read of a damaged SQLite outbox to a new file.

A page that can't be read is divided until the unreadable rows are found. Where only the event of a
row can be read, and not its state, it becomes pending: it may be delivered a second time, under
the same id. It stays held until its time where at least that can be read.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from service.config.outbox_url import sqlite_url
from service.errors import OutboxUnavailableError
from service.outbox.schema import migrate
from service.outbox.sqlite.faults import unavailable_if_sqlite_fails
from service.outbox.sqlite.lock import sole_writer
from service.outbox.sqlite.missing import MISSING_BETWEEN
from service.outbox.sqlite.transfer import (
    EVENTS_BETWEEN,
    SqliteTransferEvents,
    open_sqlite_transfer,
    transfer_row,
)
from service.outbox.sqlite.transfer_metadata import SqliteTransferMetadata

_PAGE = 500
_BOUNDS = tuple(
    f"SELECT max(seq) FROM {table}"
    for table in ("outbox", "outbox_ready", "outbox_claims", "outbox_sent", "outbox_done")
)
_EVENT = """
SELECT seq, event_id, name, owner, user_id, accepted_at_ms, 'pending', 0, 1, 0, accepted_at_ms,
       NULL, NULL, NULL, '[]', meta, idempotency_key, idempotency_digest,
       {due}, payload, (SELECT inngest_id_prefix FROM outbox_meta)
FROM outbox WHERE seq = :seq
"""
_DUE = "coalesce((SELECT due_at_ms FROM outbox_ready WHERE seq = :seq AND held), 0)"
HELD_ALONE = _EVENT.format(due=_DUE)
EVENT_ALONE = _EVENT.format(due=0)


class RecoveredFile(NamedTuple):
    """How many rows were copied, how many of them without their state, and how many were lost."""

    rows: int
    without_state: int
    lost: int


class _Copy:
    """One recovery under way."""

    def __init__(self, source: sqlite3.Connection, target: SqliteTransferEvents) -> None:
        self._source = source
        self._target = target
        self.rows = self.without_state = self.lost = 0

    def copy(self, after: int, upto: int) -> None:
        """Copy the rows after `after` up to `upto`, as far as they can be read."""
        values = {"after": after, "upto": upto}
        with contextlib.suppress(sqlite3.Error, ValueError):
            [(missing,)] = self._source.execute(MISSING_BETWEEN, values).fetchall()
            self._write(self._source.execute(EVENTS_BETWEEN, values).fetchall())
            self.lost += missing
            return
        if upto - after > 1:
            middle = (after + upto) // 2
            self.copy(after, middle)
            self.copy(middle, upto)
        else:
            self._copy_alone(upto)

    def _copy_alone(self, seq: int) -> None:
        for statement in (HELD_ALONE, EVENT_ALONE):
            with contextlib.suppress(sqlite3.Error, ValueError):
                rows = self._source.execute(statement, {"seq": seq}).fetchall()
                self._write(rows)
                self.without_state += len(rows)
                return
        self.lost += 1

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        events = [transfer_row(row) for row in rows]
        payloads = {row[1]: row[-2] for row in rows}
        self._target.write(events, payloads)
        self.rows += len(events)


def recover(source: Path, target: Path, progress: Callable[[int, int], None]) -> RecoveredFile:
    """Copy what can be read of the outbox `source` to the new file `target`. Blocks.

    `progress` gets the rows read and the rows in all. Changes nothing in `source`. Raises
    OutboxBusyError when a service holds the file, and OutboxUnavailableError when `target` exists
    or can't be written, or when nothing in `source` can be read.
    """
    if target.exists():
        raise OutboxUnavailableError(f"{target} exists already; a recovery replaces nothing.")
    with sole_writer(source), unavailable_if_sqlite_fails(), _reading(source) as reading:
        last = _last_seq(reading)
        migrate(sqlite_url(target))
        with open_sqlite_transfer(target) as writing:
            copy = _Copy(reading, writing.events)
            for after in range(0, last, _PAGE):
                copy.copy(after, min(last, after + _PAGE))
                progress(min(last, after + _PAGE), last)
            with contextlib.suppress(sqlite3.Error, ValueError):
                writing.metadata.write(SqliteTransferMetadata(reading).read())
    return RecoveredFile(copy.rows, copy.without_state, copy.lost)


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[sqlite3.Connection]:
    address = f"file:{quote(str(source))}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as reading:
        reading.text_factory = lambda text: text.decode(errors="replace")
        yield reading


def _last_seq(reading: sqlite3.Connection) -> int:
    found = []
    for statement in _BOUNDS:
        with contextlib.suppress(sqlite3.Error):
            [(seq,)] = reading.execute(statement).fetchall()
            found.append(seq or 0)
    if not found:
        raise OutboxUnavailableError("Nothing in the file can be read.")
    return max(found)
