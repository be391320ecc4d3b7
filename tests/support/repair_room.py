"""Rows of a PostgreSQL outbox in every place, and who changes them by operators' commands."""

from __future__ import annotations

from typing import Any

from service.outbox.postgres.repairs import PostgresRepairs
from tests.support.postgres_room import START_MS, Room, RoomPool, after


class Beside:
    """What repairs use beside the pool: notes what it is asked."""

    def __init__(self) -> None:
        self.due = 0
        self.dropped, self.spares = 0, (0, 0)
        self.expired: list[float] = []
        self.paused: list[dict[str, Any]] = []

    def rows_are_due(self) -> None:
        self.due += 1

    async def drop_expired(self, retention_seconds: float) -> int:
        self.expired.append(retention_seconds)
        return self.dropped

    async def spared(self, retention_seconds: float) -> tuple[int, int]:
        self.expired.append(retention_seconds)
        return self.spares

    async def set_paused(self, **given: Any) -> Any:
        self.paused.append(given)
        return "record"


class RepairRoom:
    """Repairs in a room."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.pool = RoomPool(room)
        self.beside = Beside()
        given: Any = (self.pool, self.beside, self.beside, self.beside)
        self.repairs = PostgresRepairs(*given)

    def event(self, seq: int, owner: str = "a") -> None:
        """An event `e-<seq>` with a note, of as many bytes up to a thousand."""
        one = {"event_id": f"e-{seq}", "name": "n", "owner": owner, "user_id": "u"}
        self.room.put("", seq=seq, accepted_at_ms=seq, payload=b"x" * (seq % 1000), **one)
        self.room.put("notes", seq=seq, at_ms=0, note="old")

    def pending(self, seq: int, owner: str = "a", **values: Any) -> None:
        self.event(seq, owner)
        self.room.put("ready", seq=seq, due_at=after(0), payload_bytes=seq, **values)

    def sent(self, seq: int, owner: str = "a", *, at: float = 0.0) -> None:
        self.event(seq, owner)
        past = {"first_sent_at_ms": 5, "attempts": 3, "sends": 4, "isolated": True}
        self.room.put("sent", seq=seq, sent_at_ms=START_MS + round(at * 1000), **past)

    def done(
        self,
        seq: int,
        owner: str = "a",
        *,
        dead: bool = False,
        at: float = 0.0,
        reason: str | None = None,
    ) -> None:
        self.event(seq, owner)
        past = {"first_sent_at_ms": 5, "attempts": 3, "sends": 4, "isolated": True}
        settled = {"settled_at_ms": START_MS + round(at * 1000), "dead": dead, "reason": reason}
        self.room.put("done", seq=seq, **settled, **past)

    def left(self) -> list[int]:
        """The seqs of all events that are there."""
        return sorted(self.room.rows(""))

    def noted(self) -> list[int]:
        """The seqs that have a note."""
        return sorted({row["seq"] for row in self.room.table("notes")})
