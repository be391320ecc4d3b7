"""The store of small values: application settings, the ends of sessions, records of watches."""

from __future__ import annotations

from typing import Protocol

Tree = dict[str, object]


class Scopes(Protocol):
    """One JSON object for each id in a scope."""

    async def load_scope(self, scope: str, scope_id: str) -> Tree | None:
        """The object, None when never set. Raises OutboxUnavailableError."""
        ...

    async def save_scope(self, scope: str, scope_id: str, value: Tree) -> None:
        """Replace the object; durable on return. Safe to repeat.

        Raises OutboxUnavailableError: nothing was changed, or the outcome is unknown.
        """
        ...

    @property
    def scope_revision(self) -> int:
        """A number that grows when any process saves a scope; cheap to read."""
        ...
