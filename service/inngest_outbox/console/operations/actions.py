"""The changes and looks of operators: each is logged or counted, and in the audit.

The page and the commands both use them. The store writes the audit row of a change in its commit.
A payload is personal data: the audit names who looks at one before it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from inngest_outbox.encryption import Encryption
from inngest_outbox.identity.session_revision import SESSION_SCOPE, new_revision, session_scope_id
from inngest_outbox.observe.printable import masked
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.audit import Act, Deed, ErasedRecords
from inngest_outbox.outbox.model import DeliveryRecord, Named
from inngest_outbox.outbox.ports import AuditTrail, Inspector, Repairs

log = structlog.get_logger(__name__)
_ACTION = "payload"


class OperatorActions:
    """`Repairs` that are logged and counted. `actor` is the person who asks."""

    def __init__(self, repairs: Repairs, recorder: Recorder) -> None:
        self._repairs = repairs
        self._recorder = recorder

    async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """Replay the named rows that are dead; returns their ids."""
        ids = await self._repairs.replay(wanted, actor=actor, act=act)
        self._report("replay", actor, len(ids))
        return ids

    async def discard(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """Remove the named rows that are not under a claim; returns their ids."""
        ids = await self._repairs.discard(wanted, actor=actor, act=act)
        self._report("discard", actor, len(ids))
        return ids

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """Remove delivered rows settled longer ago; returns how many."""
        gone = await self._repairs.purge(older_than_seconds=older_than_seconds, actor=actor)
        self._report("purge", actor or "retention", gone)
        return gone

    async def purge_payloads(self, *, older_than_seconds: float) -> int:
        """Remove the payloads of delivered rows settled longer ago; returns how many."""
        return await self._repairs.purge_payloads(older_than_seconds=older_than_seconds)

    async def erase_records(self, owner: str, *, actor: str) -> ErasedRecords:
        """Remove the settings of `owner`, and its name from audit and samples."""
        erased = await self._repairs.erase_records(owner, actor=actor)
        self._report("erase", actor, None)
        return erased

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        """Pause or resume delivery; returns the delivery record."""
        record = await self._repairs.set_paused(
            paused=paused, actor=actor, ask_now=ask_now, reason=reason
        )
        self._report("pause" if paused else "resume", actor, None)
        return record

    def _report(self, action: str, actor: str, rows: int | None) -> None:
        self._recorder.count("operator_actions", action=action)
        log.warning("operator_action", action=action, actor=masked(actor), rows=rows)


class Payloads:
    """Shows payloads. With `encryption` encrypted data is shown in plain."""

    def __init__(
        self,
        inspector: Inspector,
        trail: AuditTrail,
        recorder: Recorder,
        encryption: Encryption | None = None,
    ) -> None:
        self._encryption = encryption
        self._inspector = inspector
        self._trail = trail
        self._recorder = recorder

    async def searched(self, *, actor: str) -> None:
        """Note in the audit that payloads are searched, without the words that are looked for.

        Raises OutboxUnavailableError.
        """
        await self._trail.record(_ACTION, actor=actor, detail="searched the payloads")
        self._recorder.count("operator_actions", action=_ACTION)

    async def show(self, event_id: str, *, actor: str) -> bytes | None:
        """The payload of an event, None when there is no such event.

        The look is in the audit before the payload is returned. Raises OutboxUnavailableError:
        nothing is shown.
        """
        payload = await self._inspector.payload(event_id)
        if payload is None:
            return None
        shown, key = self._encryption.revealed(payload) if self._encryption else (payload, None)
        how = "" if key is None else ", decrypted"
        await self._trail.record(
            _ACTION, actor=actor, event_id=event_id, detail=f"looked at the payload{how}"
        )
        self._recorder.count("operator_actions", action=_ACTION)
        return shown


class SignOuts(Protocol):
    """Ends sessions that this service made."""

    async def sign_out(self, owners: Sequence[str], *, actor: str) -> int:
        """End all sessions of these owners; returns how many owners that were.

        Safe to repeat. Raises OutboxUnavailableError.
        """
        ...


class AuditedScopes(Protocol):
    """The store of small values of users, for an operator's change."""

    async def save_audited(
        self, scope: str, values: Mapping[str, dict[str, object]], deed: Deed
    ) -> None:
        """Replace the objects of these ids and write one audit row of the deed, in one commit.

        Safe to repeat. Raises OutboxUnavailableError.
        """
        ...


class SessionSignOuts:
    """`SignOuts` over the stored session revisions, with an audit row for each command.

    With `logged` each has a log line too, as a service has.
    """

    def __init__(self, scopes: AuditedScopes, *, logged: bool = False) -> None:
        self._scopes = scopes
        self._logged = logged

    async def sign_out(self, owners: Sequence[str], *, actor: str) -> int:
        """End all sessions of these owners; returns how many owners that were."""
        await self._scopes.save_audited(
            SESSION_SCOPE,
            {session_scope_id(owner): new_revision() for owner in owners},
            Deed(actor, "sign-out", ", ".join(owners)),
        )
        if self._logged:
            who = masked(actor)
            log.warning("operator_action", action="sign_out", actor=who, owners=len(owners))
        return len(owners)
