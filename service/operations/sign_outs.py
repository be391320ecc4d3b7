"""Ending the sessions of users by an operator's command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from service.identity.session_revision import SessionRevisions

_log = structlog.get_logger(__name__)


class SignOuts(Protocol):
    """Ends sessions that this service made."""

    async def sign_out(self, owners: Sequence[str], *, actor: str) -> int:
        """End all sessions of these owners; returns how many owners that were.

        Safe to repeat. Raises OutboxUnavailableError.
        """
        ...


class SessionSignOuts:
    """`SignOuts` over the stored session revisions. Each command leaves a log line."""

    def __init__(self, revisions: SessionRevisions) -> None:
        self._revisions = revisions

    async def sign_out(self, owners: Sequence[str], *, actor: str) -> int:
        """End all sessions of these owners; returns how many owners that were."""
        for owner in owners:
            await self._revisions.end_all(owner)
        _log.warning("operator_action", action="sign_out", actor=actor, owners=len(owners))
        return len(owners)
