"""The count of events that Inngest has answered and is not known to hold.

Inngest keeps them in memory until it stores them. The invariant: at most `max_events` are sent
ahead of its store, and a share of them is kept for fresh events. An environment that Inngest
refuses to tell about has a bound of its own, so that it holds up no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.ports import Confirmations

_FRESH_SHARE = 0.1
_REFUSED_SHARE = 0.1
_PAGE = 500
_LOOK_SECONDS = 60.0
_LEFT_SECONDS = 600.0

log = structlog.get_logger(__name__)


class Unconfirmed:
    """The count of unconfirmed events, and how many more may be sent.

    `refused` counts those of environments that can't be asked about, None being the service's own.
    `on_sent` is called when events were answered, `on_room` when the room grew.
    """

    def __init__(self, max_events: int) -> None:
        self.max_events = max_events
        self.count = 0
        self.refused: Mapping[str | None, int] = {}
        self.on_sent: Callable[[], None] = lambda: None
        self.on_room: Callable[[], None] = lambda: None

    def room(self, in_flight: int) -> int:
        """The number of events that may be sent while `in_flight` wait for their answer."""
        apart = sum(rows for name, rows in self.refused.items() if name is not None)
        return max(0, self.max_events - max(0, self.count - apart) - in_flight)

    def only_fresh(self, in_flight: int) -> bool:
        """True when only fresh events may still be sent."""
        return self.room(in_flight) <= self.max_events * _FRESH_SHARE

    def is_full(self, environment: str | None) -> bool:
        """True when no more may be sent to an environment that Inngest refuses to tell about."""
        bound = self.max_events * _REFUSED_SHARE
        return environment is not None and self.refused.get(environment, 0) >= bound

    def sent(self, events: int, environment: str | None = None) -> None:
        """Count events that Inngest has answered."""
        self.count += events
        if environment in self.refused:
            self.refused = {**self.refused, environment: self.refused[environment] + events}
        if events:
            self.on_sent()

    def confirmed(self, events: int) -> None:
        """Count events that Inngest holds: their room is free."""
        self.recount(max(0, self.count - events))

    def recount(self, events: int) -> None:
        """Replace the count by the store's."""
        grown = events < self.count
        self.count = events
        if grown:
            self.on_room()


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
