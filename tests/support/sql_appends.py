"""Events that an application appends in SQL, in a room."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.support.postgres_room import Room

_WITH_CLOCK = "ALTER FUNCTION outbox.append SET search_path = clock, public, pg_catalog, pg_temp"


class SqlAppends:
    """Calls of `outbox.append` by the clock that a test sets."""

    def __init__(self, room: Room) -> None:
        self.room = room
        room.run(_WITH_CLOCK)

    def append(self, **fields: object) -> str:
        """The id of an event of `u-1` with these parameters; objects are JSON."""
        given = {"name": "app/saved", "data": {}, "user_id": "u-1", **fields}
        values = {key: Jsonb(one) if isinstance(one, dict) else one for key, one in given.items()}
        return self.call(", ".join(f"{key} => %({key})s" for key in given), values)

    def call(self, parameters: str, values: dict[str, Any] | None = None) -> str:
        """The id that a call gives. One that fails leaves nothing."""
        with self.room.connection.transaction():
            [(event_id,)] = self.room.run(f"SELECT outbox.append({parameters})", values)
        return str(event_id)

    def takes(self, **fields: object) -> bool:
        """Whether an append takes these values."""
        try:
            self.append(**fields)
        except psycopg.errors.InvalidParameterValue:
            return False
        return True

    def stored(self, event_id: str) -> dict[str, Any]:
        """The row of an event, and its seq."""
        rows = self.room.rows("").items()
        [(seq, row)] = [one for one in rows if one[1]["event_id"] == event_id]
        return {"seq": seq, **row}
