"""What a process knows of its outbox before it has read the file."""

from __future__ import annotations

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.inngest_id import InngestIds
from service.outbox.model import DeliveryRecord
from service.outbox.sqlite.memory import Memory


def test_nothing_is_known_before_the_file_was_read() -> None:
    for ask in (Memory().known_record, Memory().known_ids):
        with pytest.raises(OutboxUnavailableError, match="not been read yet"):
            ask()


def test_what_was_read_is_known() -> None:
    record, ids = DeliveryRecord("healthy", "", 1, 0, 0.0, 0), InngestIds(b"prefix")
    memory = Memory(record, ids)
    assert memory.known_record() is record
    assert memory.known_ids() is ids
