"""How many events Inngest has answered and is not known to hold.

Inngest keeps them in memory until it stores them. The invariant: at most `max_events` are sent
ahead of its store, and a share of them is kept for fresh events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from service.errors import OutboxUnavailableError
from service.outbox.ports import Confirmations

_FRESH_SHARE = 0.1


class Unconfirmed:
    """The count of unconfirmed events, and how many more may be sent.

    `on_sent` is called when events were answered, `on_room` when the room grew.
    """

    def __init__(self, max_events: int) -> None:
        self.max_events = max_events
        self.count = 0
        self.on_sent: Callable[[], None] = lambda: None
        self.on_room: Callable[[], None] = lambda: None

    def room(self, in_flight: int) -> int:
        """How many more events may be sent while `in_flight` wait for their answer."""
        return max(0, self.max_events - self.count - in_flight)

    def only_fresh(self, in_flight: int) -> bool:
        """Whether only fresh events may still be sent."""
        return self.room(in_flight) <= self.max_events * _FRESH_SHARE

    def sent(self, events: int) -> None:
        """Count events that Inngest has answered."""
        self.count += events
        if events:
            self.on_sent()

    def recount(self, events: int) -> None:
        """Replace the count by the store's."""
        grown = events < self.count
        self.count = events
        if grown:
            self.on_room()


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
