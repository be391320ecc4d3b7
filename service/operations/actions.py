"""What operators change, with a log line and a count for each change.

The page and the control socket both go through here, so that no change passes unseen; the store
adds the audit row in the change's own commit.
"""

from __future__ import annotations

import structlog

from service.observe.recorder import Recorder
from service.outbox.model import DeliveryRecord, Filter
from service.outbox.ports import Operations

log = structlog.get_logger(__name__)


class OperatorActions:
    """The changing half of Operations; `actor` is who asks."""

    def __init__(self, operations: Operations, recorder: Recorder) -> None:
        self._operations = operations
        self._recorder = recorder

    async def replay(self, wanted: Filter, *, actor: str) -> list[str]:
        """See Operations.replay."""
        ids = await self._operations.replay(wanted, actor=actor)
        self._report("replay", actor, len(ids))
        return ids

    async def discard(self, wanted: Filter, *, actor: str) -> list[str]:
        """See Operations.discard."""
        ids = await self._operations.discard(wanted, actor=actor)
        self._report("discard", actor, len(ids))
        return ids

    async def purge(self, *, older_than_seconds: float, actor: str) -> int:
        """See Operations.purge."""
        gone = await self._operations.purge(older_than_seconds=older_than_seconds, actor=actor)
        self._report("purge", actor, gone)
        return gone

    async def set_paused(self, *, paused: bool, actor: str) -> DeliveryRecord:
        """See Operations.set_paused."""
        record = await self._operations.set_paused(paused=paused, actor=actor)
        self._report("pause" if paused else "resume", actor, None)
        return record

    def _report(self, action: str, actor: str, rows: int | None) -> None:
        self._recorder.count("operator_actions", action=action)
        log.warning("operator_action", action=action, actor=_masked(actor), rows=rows)


def _masked(actor: str) -> str:
    """No e-mail is logged in clear; the audit has the whole name.

    >>> _masked("ada@example.com"), _masked("ada")
    ('a***@example.com', 'ada')
    """
    name, at, host = actor.partition("@")
    return f"{name[:1]}***@{host}" if at else actor
