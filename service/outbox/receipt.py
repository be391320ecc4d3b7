"""The answer to an append."""

from __future__ import annotations

import msgspec

from service.outbox.inngest_id import InngestIds


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Which event an append stored, or found under its key.

    `replayed` means that it is the key's first event. `moved_id` is the ULID that the event brought
    from another outbox, None where `ids` derives it from `seq` and `accepted_at_ms`.
    """

    event_id: str
    seq: int
    accepted_at_ms: int
    ids: InngestIds
    replayed: bool = False
    moved_id: str | None = None

    @property
    def inngest_id(self) -> str:
        """The ULID under which Inngest has the event, or will have it."""
        return self.ids.ulid(self.seq, self.accepted_at_ms, self.moved_id)
