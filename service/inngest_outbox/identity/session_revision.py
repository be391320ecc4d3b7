"""Ends all sessions of a user: one revision for each user, kept in the store.

A session keeps the revision of its start and ends when the user's revision changes. Revisions are
cached until any process saves a scope, so that checking a session needs no query.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict

from inngest_outbox.identity.scopes import Scopes

SESSION_SCOPE = "session"
_FIELD = "revision"
_MAX_REMEMBERED = 10_000


def session_scope_id(owner: str) -> str:
    """The name of a user's revision in the store: a hash, so that the store does not tell who."""
    return hashlib.sha256(owner.encode("utf-8", "surrogateescape")).hexdigest()


def new_revision() -> dict[str, object]:
    """The value to store for a user whose sessions are to end."""
    return {_FIELD: secrets.token_hex(8)}


class SessionRevisions:
    """Reads and changes the revisions of users."""

    def __init__(self, scopes: Scopes) -> None:
        self._scopes = scopes
        self._seen = scopes.scope_revision
        self._remembered: OrderedDict[str, str] = OrderedDict()

    @property
    def generation(self) -> int:
        """A number that grows when any revision may have changed."""
        return self._scopes.scope_revision

    async def current(self, owner: str) -> str:
        """The revision that a session of `owner` must have; raises OutboxUnavailableError."""
        generation = self.generation
        if generation != self._seen:
            self._seen = generation
            self._remembered.clear()
        known = self._remembered.get(owner)
        return known if known is not None else await self._load(owner, generation)

    async def latest(self, owner: str) -> str:
        """The revision for a new session of `owner`: as stored, not as this process knows it.

        Raises OutboxUnavailableError.
        """
        return await self._load(owner, self.generation)

    async def end_all(self, owner: str) -> None:
        """End every session of `owner` that exists now; raises OutboxUnavailableError.

        Other processes notice within seconds.
        """
        await self._scopes.save_scope(SESSION_SCOPE, session_scope_id(owner), new_revision())

    async def _load(self, owner: str, generation: int) -> str:
        stored = await self._scopes.load_scope(SESSION_SCOPE, session_scope_id(owner)) or {}
        revision = str(stored.get(_FIELD, ""))
        if generation == self._seen:
            self._remembered[owner] = revision
            if len(self._remembered) > _MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return revision
