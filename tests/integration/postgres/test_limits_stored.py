"""The limits that a service stores for applications which append in SQL to a PostgreSQL outbox."""

from __future__ import annotations

from service.outbox.postgres.quota import SET_LIMITS
from tests.support.postgres_room import Room


def test_limits_are_stored_once(room: Room) -> None:
    given = {"pending": 1, "pending_per_user": 2, "bytes": None, "bytes_per_user": 4, "heavy": 5}
    changed = [room.connection.execute(SET_LIMITS, given).rowcount for _ in range(2)]
    assert changed == [1, 0]
    columns = "max_pending, max_pending_per_user, max_bytes, max_bytes_per_user, heavy_rows"
    assert room.run(f"SELECT {columns} FROM outbox_meta") == [(1, 2, None, 4, 5)]
    for name in given:
        assert room.connection.execute(SET_LIMITS, {**given, name: 9}).rowcount == 1
        assert room.connection.execute(SET_LIMITS, given).rowcount == 1
