"""Ending the sessions of users by an operator's command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from service.console.operations.changing.actions import masked
from service.identity.session_revision import SESSION_SCOPE, new_revision, session_scope_id
from service.outbox.audit import Deed

_log = structlog.get_logger(__name__)


class SignOuts(Protocol):
    """Ends sessions that this service made."""

    async def sign_out(self, owners: Sequence[str], *, actor: str) -> int:
        """End all sessions of these owners; returns how many owners that were.

        Safe to repeat. Raises OutboxUnavailableError.
        """
        ...


class AuditedScopes(Protocol):
    """Where small values of users are stored, for an operator's change."""

    async def save_audited(
        self, scope: str, settings: Mapping[str, dict[str, object]], deed: Deed
    ) -> None:
        """Replace the objects of these ids and write one audit row of the deed, in one commit.

        Safe to repeat. Raises OutboxUnavailableError.
        """
        ...


class SessionSignOuts:
    """`SignOuts` over the stored session revisions, with an audit row for each command."""

    def __init__(self, scopes: AuditedScopes) -> None:
        self._scopes = scopes

    async def sign_out(self, owners: Sequence[str], *, actor: str) -> int:
        """End all sessions of these owners; returns how many owners that were."""
        await self._scopes.save_audited(
            SESSION_SCOPE,
            {session_scope_id(owner): new_revision() for owner in owners},
            Deed(actor, "sign-out", ", ".join(owners)),
        )
        return len(owners)


class LoggedSignOuts:
    """`SignOuts` with a log line for each command, for a service."""

    def __init__(self, sign_outs: SignOuts) -> None:
        self._sign_outs = sign_outs

    async def sign_out(self, owners: Sequence[str], *, actor: str) -> int:
        """End all sessions of these owners; returns how many owners that were."""
        await self._sign_outs.sign_out(owners, actor=actor)
        _log.warning("operator_action", action="sign_out", actor=masked(actor), owners=len(owners))
        return len(owners)
