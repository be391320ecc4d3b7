"""Acts of operators that change no row, in the audit of an SQLite outbox."""

from __future__ import annotations

import sqlite3

from service.outbox.audit import new_act
from service.outbox.sqlite.jobs import JobRunner
from service.outbox.sqlite.notes import audit_rows


class SqliteTrail:
    """Writes the audit through `jobs`."""

    def __init__(self, jobs: JobRunner) -> None:
        self._jobs = jobs

    async def record(self, action: str, *, actor: str, event_id: str, detail: str) -> None:
        """Add an act about one event to the audit. Raises OutboxUnavailableError."""

        def run(connection: sqlite3.Connection) -> bool:
            audit_rows(connection, actor, action, new_act(detail), [event_id])
            return True

        await self._jobs.run(run)
