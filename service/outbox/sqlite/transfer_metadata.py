"""What a move reads and writes in an SQLite outbox beside its events."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from service.outbox.move.transfer import Metadata
from service.outbox.move.transfer_metadata import read_metadata, read_moves
from service.outbox.sqlite.notes import write_audit

PAUSE = """
UPDATE outbox_delivery SET paused_by = ?, pause_reason = ?, revision = revision + 1
"""
NOTE = """
INSERT INTO outbox_audit (act, at_ms, actor, action, detail, ids) VALUES (?, ?, ?, ?, ?, ?)
"""


class SqliteTransferMetadata:
    """The settings, the audit and the pause of the outbox behind `connection`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read(self) -> Metadata:
        """All of it."""
        return read_metadata(self._connection.execute)

    def write(self, metadata: Metadata) -> None:
        """Replace all of it, atomically."""
        run = self._connection
        with transaction(run):
            run.execute("DELETE FROM outbox_settings")
            run.executemany("INSERT INTO outbox_settings VALUES (?, ?, ?)", metadata.scopes)
            run.execute("DELETE FROM outbox_audit WHERE action <> 'move'")
            run.executemany(NOTE, metadata.audit)
            run.execute(PAUSE, (metadata.paused_by, metadata.pause_reason))

    def moves(self) -> list[str]:
        """The details of the moves into this outbox, oldest first."""
        return read_moves(self._connection.execute)

    def note_move(self, actor: str, detail: str) -> None:
        """Add a move to the operator actions."""
        write_audit(self._connection, actor, "move", detail)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that writes; an error inside takes it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
