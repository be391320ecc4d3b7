"""What the serving process knows about its outbox's file without reading it again."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import OutboxUnavailableError
from service.outbox.inngest_id import InngestIds
from service.outbox.model import DeliveryRecord

_UNREAD = "The outbox has not been read yet."


@dataclass(slots=True)
class Memory:
    """The delivery record and how ids in Inngest are made; None before the file was read."""

    record: DeliveryRecord | None = None
    ids: InngestIds | None = None

    def known_record(self) -> DeliveryRecord:
        """The delivery record as last saved. Raises OutboxUnavailableError before it was read."""
        if self.record is None:
            raise OutboxUnavailableError(_UNREAD)
        return self.record

    def known_ids(self) -> InngestIds:
        """How ids in Inngest are made. Raises OutboxUnavailableError before it was read."""
        if self.ids is None:
            raise OutboxUnavailableError(_UNREAD)
        return self.ids
