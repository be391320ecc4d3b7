"""The stored application settings of organizations and users in an SQLite outbox."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from service.outbox.sqlite.jobs import JobRunner
from service.outbox.sqlite.notes import write_audit
from service.outbox.sqlite.reader import SqliteReader

LOAD_SETTINGS = "SELECT settings FROM outbox_settings WHERE scope = :scope AND scope_id = :scope_id"
SAVE_SETTINGS = """
INSERT INTO outbox_settings (scope, scope_id, settings) VALUES (:scope, :scope_id, :settings)
ON CONFLICT (scope, scope_id) DO UPDATE SET settings = excluded.settings
"""
RAISE_REVISION = "UPDATE outbox_meta SET settings_revision = settings_revision + 1"


class SqliteSettings:
    """One process writes them, so their revision is counted in memory."""

    def __init__(self, reader: SqliteReader, jobs: JobRunner) -> None:
        self._reader = reader
        self._jobs = jobs
        self._revision = 0

    @property
    def scope_revision(self) -> int:
        """A number that has grown when a scope was saved."""
        return self._revision

    async def load_scope(self, scope: str, scope_id: str) -> dict[str, object] | None:
        """The settings of one scope, None when never set."""
        return await self._reader.run_soon(_load, {"scope": scope, "scope_id": scope_id})

    async def save_scope(self, scope: str, scope_id: str, settings: dict[str, object]) -> None:
        """Replace the settings of one scope."""
        values = [_values(scope, scope_id, settings)]

        def run(connection: sqlite3.Connection) -> bool:
            return _save(connection, values)

        await self._jobs.run(run, self._saved)

    async def save_audited(
        self,
        scope: str,
        settings: Mapping[str, dict[str, object]],
        *,
        actor: str,
        action: str,
        detail: str,
    ) -> None:
        """Replace the settings of these ids and write one audit row, in one commit."""
        values = [_values(scope, scope_id, one) for scope_id, one in settings.items()]

        def run(connection: sqlite3.Connection) -> bool:
            write_audit(connection, actor, action, detail)
            return _save(connection, values)

        await self._jobs.run(run, self._saved)

    def _saved(self, _: bool) -> None:  # noqa: FBT001
        self._revision += 1


def _load(connection: sqlite3.Connection, values: dict[str, str]) -> dict[str, object] | None:
    rows = connection.execute(LOAD_SETTINGS, values).fetchall()
    return msgspec.json.decode(rows[0][0], type=dict[str, object]) if rows else None


def _save(connection: sqlite3.Connection, values: Sequence[dict[str, str]]) -> bool:
    connection.executemany(SAVE_SETTINGS, values)
    connection.execute(RAISE_REVISION)
    return True


def _values(scope: str, scope_id: str, settings: dict[str, object]) -> dict[str, str]:
    text = msgspec.json.encode(settings).decode()
    return {"scope": scope, "scope_id": scope_id, "settings": text}
