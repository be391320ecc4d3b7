"""The stored application settings of organizations and users on PostgreSQL.

`scope_revision` grows when any process saves: the save raises one counter in the same statement.
Other processes read it after a notification and every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import LiteralString, Self

import msgspec

from service.errors import OutboxUnavailableError
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.trail import AUDITED_ACT, audited
from service.supervisor import Supervisor

LOAD_SCOPE = (
    "SELECT settings FROM outbox_settings WHERE scope = %(scope)s AND scope_id = %(scope_id)s"
)

SAVE_SCOPE = """
WITH saved AS (
    INSERT INTO outbox_settings (scope, scope_id, settings)
    VALUES (%(scope)s, %(scope_id)s, %(settings)s)
    ON CONFLICT (scope, scope_id) DO UPDATE SET settings = excluded.settings
)
UPDATE outbox_meta SET settings_revision = settings_revision + 1 RETURNING settings_revision
"""

SAVE_AUDITED = f"""
WITH saved AS (
    INSERT INTO outbox_settings (scope, scope_id, settings)
    SELECT %(scope)s, scope_id, settings
    FROM unnest(%(scope_ids)s::text[], %(settings)s::text[]) AS given (scope_id, settings)
    ON CONFLICT (scope, scope_id) DO UPDATE SET settings = excluded.settings
), audited AS ({AUDITED_ACT})
UPDATE outbox_meta SET settings_revision = settings_revision + 1 RETURNING settings_revision
"""

READ_REVISION = "SELECT settings_revision FROM outbox_meta"

_POLL_SECONDS = 5.0


class PostgresSettings:
    """Loads and saves settings; an async context manager."""

    def __init__(self, pool: PostgresPool, wakeup: PostgresWakeup, supervisor: Supervisor) -> None:
        self.scope_revision = 0
        self._stored_revision = 0
        self._returns = pool.returns
        self._wakeup = wakeup
        self._pool = pool
        self._supervisor = supervisor
        self._look = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._wakeup.on_settings(self._look.set)
        await self._read()
        self._supervisor.watch("outbox-scopes", self._keep_reading)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("outbox-scopes")

    async def load_scope(self, scope: str, scope_id: str) -> dict[str, object] | None:
        """The settings of one scope."""
        rows = await self._pool.run(LOAD_SCOPE, {"scope": scope, "scope_id": scope_id})
        return msgspec.json.decode(rows[0][0], type=dict[str, object]) if rows else None

    async def save_scope(self, scope: str, scope_id: str, settings: dict[str, object]) -> None:
        """Replace the settings of one scope."""
        text = msgspec.json.encode(settings).decode()
        given = {"scope": scope, "scope_id": scope_id, "settings": text}
        await self._save(SAVE_SCOPE, given)

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
        texts = [msgspec.json.encode(one).decode() for one in settings.values()]
        stored = {"scope": scope, "scope_ids": list(settings), "settings": texts}
        act = audited(action, actor=actor, detail=detail)
        await self._save(SAVE_AUDITED, {**stored, **act})

    async def _save(self, statement: LiteralString, given: Mapping[str, object]) -> None:
        rows = await self._pool.run(statement, given)
        self._note(int(rows[0][0]))
        self._wakeup.settings_were_saved()

    async def _read(self) -> None:
        with contextlib.suppress(OutboxUnavailableError):
            rows = await self._pool.run(READ_REVISION)
            self._note(int(rows[0][0]))

    def _note(self, revision: int) -> None:
        """Raise `scope_revision` when the stored revision has changed, or may have begun again."""
        if self._returns != self._pool.returns:
            self._returns, self._stored_revision = self._pool.returns, revision - 1
        self.scope_revision += max(0, revision - self._stored_revision)
        self._stored_revision = max(self._stored_revision, revision)

    async def _keep_reading(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._look.wait()
            self._look.clear()
            await self._read()
