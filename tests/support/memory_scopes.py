"""Stored scopes in memory, as the settings and the sessions know them."""

from __future__ import annotations

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.identity.session_revision import SessionRevisions

Tree = dict[str, object]


class MemoryScopes:
    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], Tree] = {}
        self.scope_revision = 0
        self.is_away = False
        self.loads = 0

    async def load_scope(self, scope: str, scope_id: str) -> Tree | None:
        self.loads += 1
        self._check()
        return self.stored.get((scope, scope_id))

    async def save_scope(self, scope: str, scope_id: str, settings: Tree) -> None:
        self._check()
        self.stored[scope, scope_id] = settings
        self.scope_revision += 1

    def _check(self) -> None:
        if self.is_away:
            raise OutboxUnavailableError


def revisions() -> SessionRevisions:
    return SessionRevisions(MemoryScopes())
