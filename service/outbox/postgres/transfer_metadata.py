"""What a move reads and writes in a PostgreSQL outbox beside its events."""

from __future__ import annotations

from typing import Any

import psycopg

from service.outbox.move.transfer import Metadata
from service.outbox.move.transfer_metadata import read_metadata, read_moves

PAUSE = """
UPDATE outbox_delivery SET paused_by = %s, pause_reason = %s, revision = revision + 1
"""
NOTE = """
INSERT INTO outbox_audit (act, at_ms, actor, action, detail, ids) VALUES (%s, %s, %s, %s, %s, %s)
"""
NOTE_MOVE = """
INSERT INTO outbox_audit (at_ms, actor, action, detail)
VALUES (floor(extract(epoch FROM clock_timestamp()) * 1000), %s, 'move', %s)
"""


class PostgresTransferMetadata:
    """The settings, the audit and the pause of the outbox behind `connection`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def read(self) -> Metadata:
        """All of it."""
        return read_metadata(self._connection.execute)

    def write(self, metadata: Metadata) -> None:
        """Replace all of it, atomically."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("DELETE FROM outbox_settings")
            cursor.executemany("INSERT INTO outbox_settings VALUES (%s, %s, %s)", metadata.scopes)
            cursor.execute("UPDATE outbox_meta SET settings_revision = settings_revision + 1")
            cursor.execute("DELETE FROM outbox_audit WHERE action <> 'move'")
            cursor.executemany(NOTE, metadata.audit)
            cursor.execute(PAUSE, (metadata.paused_by, metadata.pause_reason))

    def moves(self) -> list[str]:
        """The details of the moves into this outbox, oldest first."""
        return read_moves(self._connection.execute)

    def note_move(self, actor: str, detail: str) -> None:
        """Add a move to the operator actions."""
        self._connection.execute(NOTE_MOVE, (actor, detail))
