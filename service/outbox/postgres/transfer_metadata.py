"""What a move reads and writes in a PostgreSQL outbox beside its events."""

from __future__ import annotations

from typing import Any

import psycopg

from service.outbox.transfer import Metadata

SCOPES = "SELECT scope, scope_id, settings FROM outbox_settings ORDER BY scope, scope_id"
AUDIT = """
SELECT act, at_ms, actor, action, detail, ids FROM outbox_audit WHERE action <> 'move' ORDER BY id
"""
PAUSED_BY = "SELECT paused_by FROM outbox_delivery"
PAUSE = "UPDATE outbox_delivery SET paused_by = %s, revision = revision + 1"
MOVES = "SELECT detail FROM outbox_audit WHERE action = 'move' ORDER BY id"
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
        scopes = self._connection.execute(SCOPES).fetchall()
        audit = self._connection.execute(AUDIT).fetchall()
        [(paused_by,)] = self._connection.execute(PAUSED_BY).fetchall()
        return Metadata(scopes, audit, paused_by)

    def write(self, metadata: Metadata) -> None:
        """Replace all of it, atomically."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("DELETE FROM outbox_settings")
            cursor.executemany("INSERT INTO outbox_settings VALUES (%s, %s, %s)", metadata.scopes)
            cursor.execute("UPDATE outbox_meta SET settings_revision = settings_revision + 1")
            cursor.execute("DELETE FROM outbox_audit WHERE action <> 'move'")
            cursor.executemany(NOTE, metadata.audit)
            cursor.execute(PAUSE, (metadata.paused_by,))

    def moves(self) -> list[str]:
        """The details of the moves into this outbox, oldest first."""
        return [detail for (detail,) in self._connection.execute(MOVES)]

    def note_move(self, actor: str, detail: str) -> None:
        """Add a move to the operator actions."""
        self._connection.execute(NOTE_MOVE, (actor, detail))
