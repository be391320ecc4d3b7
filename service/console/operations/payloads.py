"""Payloads for operators: personal data, so the audit names who looks at one."""

from __future__ import annotations

import structlog

from service.encryption import Encryption
from service.observe.recorder import Recorder
from service.outbox.ports import AuditTrail, Inspector

_ACTION = "payload"

log = structlog.get_logger(__name__)


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
