"""Rows that wait for a confirmation although confirmation is off."""

from __future__ import annotations

import structlog

from service.outbox.ports import Confirmations

_PAGE = 500

log = structlog.get_logger(__name__)


async def deliver_unconfirmed(confirmations: Confirmations) -> int:
    """Sent rows become delivered, since an answer is enough now; returns how many.

    Safe to repeat. Raises OutboxUnavailableError.
    """
    delivered, after_seq = 0, 0
    while rows := await confirmations.sent(_PAGE, after_seq):
        delivered += await confirmations.confirm([row.seq for row in rows])
        after_seq = rows[-1].seq
    if delivered:
        log.warning("delivered_unconfirmed", events=delivered)
    return delivered
