"""The changes of operators, with a log line and a count for each.

The page and the commands both use these actions, so that every change is logged and counted.
The store writes the audit row in the commit of the change.
"""

from __future__ import annotations

import structlog

from service.observe.recorder import Recorder
from service.outbox.audit import Act, ErasedRecords
from service.outbox.model import DeliveryRecord, Named
from service.outbox.ports import Repairs

log = structlog.get_logger(__name__)


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
        """Remove the settings of `owner`, and its name from the audit."""
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


def masked(actor: str) -> str:
    """The actor for the log: an e-mail is masked. The audit has the whole name.

    >>> masked("ada@example.com"), masked("ada")
    ('a***@example.com', 'ada')
    """
    name, at, host = actor.partition("@")
    return f"{name[:1]}***@{host}" if at else actor
