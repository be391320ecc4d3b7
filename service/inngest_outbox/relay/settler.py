"""Writes settlements, and repeats until the store has them.

The answer is known, so waiting for the store loses nothing. A settlement is written once, or its
rows are left to their lease when the process ends.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import Batch, Settlement
from inngest_outbox.outbox.ports import Queue
from inngest_outbox.relay.breaker_sync import BreakerSync
from inngest_outbox.relay.outcome import due_again
from inngest_outbox.relay.report import Report
from inngest_outbox.relay.unconfirmed import Unconfirmed

RETRY_SECONDS = 0.25

log = structlog.get_logger(__name__)


class Settler:
    """Settles into `queue`.

    With `unconfirmed`, rows that Inngest took become sent and are counted there; without, they are
    delivered.
    """

    def __init__(
        self, queue: Queue, sync: BreakerSync, report: Report, unconfirmed: Unconfirmed | None
    ) -> None:
        self._queue = queue
        self._sync = sync
        self._report = report
        self._unconfirmed = unconfirmed

    def is_full(self, environment: str | None) -> bool:
        """True when no more events may be sent to this environment for now."""
        return self._unconfirmed is not None and self._unconfirmed.is_full(environment)

    async def settle_answer(
        self, settlement: Settlement, environment: str | None, *, can_confirm: bool
    ) -> Settlement:
        """Settle what an answer says; returns the settlement that was written.

        `can_confirm` is false when Inngest can't be asked about these events; its answer is then
        enough.
        """
        taken = len(settlement.delivered)
        unconfirmed = self._unconfirmed if can_confirm else None
        if unconfirmed is not None:
            settlement = _as_sent(settlement)
        await self.settle(settlement)
        self._sync.answered(taken)
        if unconfirmed is None:
            self._sync.delivered(taken)
        else:
            unconfirmed.sent(taken, environment)
        return settlement

    async def settle(self, settlement: Settlement) -> None:
        """Settle the named rows, if any. Reports rows of a lost lease."""
        if not settlement.seqs:
            return
        while True:
            try:
                stale = await self._queue.settle(settlement)
                break
            except OutboxUnavailableError as error:
                log.warning("settle_failed", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
        if stale:
            self._report.lease_lost(settlement.claim, stale)

    async def put_back(
        self, batch: Batch, *, isolated: bool = False, delay_seconds: float = 0.0
    ) -> None:
        """Make the rows due again after a delay: their request showed nothing about them."""
        retry = due_again(batch.entries, isolated=isolated, delay_seconds=delay_seconds)
        await self.settle(Settlement(batch.claim, retry=retry))


def _as_sent(settlement: Settlement) -> Settlement:
    """The settlement with taken rows as sent, which wait for a confirmation."""
    return msgspec.structs.replace(settlement, delivered=(), sent=settlement.delivered)
