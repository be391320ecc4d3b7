"""The answer to an append."""

from __future__ import annotations

import msgspec

from service.outbox.event import NO_META, Meta
from service.outbox.inngest_id import InngestIds


class Receipt(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Which event an append stored, or found under its key.

    `replayed` means that it is the key's first event. `ids` derives its ULID from `seq`,
    `accepted_at_ms` and `meta`.
    """

    event_id: str
    seq: int
    accepted_at_ms: int
    ids: InngestIds
    replayed: bool = False
    meta: Meta = NO_META

    @property
    def inngest_id(self) -> str:
        """The ULID under which Inngest has the event, or will have it."""
        return self.ids.ulid(self.seq, self.accepted_at_ms, self.meta)
