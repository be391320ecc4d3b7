"""What a move reads and writes of a PostgreSQL outbox beside its events."""

from __future__ import annotations

import psycopg
import pytest

from service.outbox.move.transfer import Metadata
from service.outbox.postgres.transfer_metadata import PostgresTransferMetadata
from tests.support.moved_rows import AUDIT, METADATA
from tests.support.postgres_room import START_MS, Room


@pytest.fixture
def metadata(room: Room) -> PostgresTransferMetadata:
    return PostgresTransferMetadata(room.connection)


def revisions(room: Room) -> list[int]:
    """Those of the delivery and of the settings."""
    [found] = room.run("SELECT revision, settings_revision FROM outbox_delivery, outbox_meta")
    return list(found)


def test_metadata_come_back_as_they_were_written(
    room: Room, metadata: PostgresTransferMetadata
) -> None:
    metadata.write(Metadata([("user", "old", "{}")], [AUDIT[0]], None, ""))
    room.at(5)
    metadata.note_move("cy", "from elsewhere")
    before = revisions(room)
    metadata.write(METADATA)
    assert metadata.read() == METADATA
    assert metadata.moves() == ["from elsewhere"]
    assert revisions(room) == [one + 1 for one in before]
    [moved] = [one for one in room.table("audit") if one["action"] == "move"]
    assert (moved["at_ms"], moved["actor"], moved["ids"]) == (START_MS + 5000, "cy", "[]")


def test_metadata_are_written_whole_or_not_at_all(
    room: Room, metadata: PostgresTransferMetadata
) -> None:
    metadata.write(METADATA)
    bad = Metadata([], [("act", 1, None, "a", "d", "[]")], None, "")  # type: ignore[list-item]
    with pytest.raises(psycopg.errors.NotNullViolation):
        metadata.write(bad)
    assert metadata.read() == METADATA
