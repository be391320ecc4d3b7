"""A row that Inngest has answered, as the confirmer sees it."""

from __future__ import annotations

import msgspec

from service.outbox.event import NO_META, Meta
from service.outbox.inngest_id import WantedEvent


class SentEntry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A row that Inngest has answered, without its bytes.

    `sent_seconds` is how long ago it was settled as sent (or, for a delivered row, as delivered),
    by the store's clock; `sends` counts its claims.
    """

    seq: int
    event_id: str
    accepted_at_ms: int
    sent_seconds: float
    sends: int = 1
    meta: Meta = NO_META

    @property
    def as_sent(self) -> WantedEvent:
        """The event as Inngest has it."""
        return WantedEvent.sent(self.event_id, self.meta)
