"""Rows that wait for a confirmation although confirmation is off."""

from __future__ import annotations

import asyncio

import structlog

from service.errors import OutboxUnavailableError
from service.outbox.ports import Confirmations

_PAGE = 500
_LOOK_SECONDS = 60.0
_LEFT_SECONDS = 600.0

log = structlog.get_logger(__name__)


async def deliver_unconfirmed(
    confirmations: Confirmations, *, answered_seconds: float = 0.0
) -> int:
    """Sent rows become delivered, since an answer is enough now; returns how many.

    Only rows that were answered at least `answered_seconds` ago. Safe to repeat. Raises
    OutboxUnavailableError.
    """
    delivered, after_seq = 0, 0
    while rows := await confirmations.sent(_PAGE, after_seq):
        old = [row.seq for row in rows if row.sent_seconds >= answered_seconds]
        delivered += await confirmations.confirm(old) if old else 0
        after_seq = rows[-1].seq
    if delivered:
        log.warning("delivered_unconfirmed", events=delivered)
    return delivered


async def deliver_left_rows(confirmations: Confirmations) -> None:
    """Deliver sent rows that other processes have left, now and then, until cancelled.

    They were answered ten minutes ago, and no process asks Inngest about them.
    """
    while True:
        try:
            if await confirmations.count_sent() and await confirmations.may_ask():
                await deliver_unconfirmed(confirmations, answered_seconds=_LEFT_SECONDS)
                await confirmations.stop_asking()
        except OutboxUnavailableError as error:
            log.warning("confirm_failed", reason=str(error))
        await asyncio.sleep(_LOOK_SECONDS)
