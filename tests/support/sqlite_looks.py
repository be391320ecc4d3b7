"""Looks at an SQLite outbox in memory, at one moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.inspector import SqliteInspector
from service.outbox.sqlite.positions import SqlitePositions
from service.outbox.sqlite.settings import SqliteSettings
from service.outbox.sqlite.trail import SqliteTrail
from tests.support.sqlite_room import START_MS, Inline, InlineJobs, Room
from tests.support.storage import event

NOW_MS = START_MS + 100_000


class LooksDesk:
    """An outbox in memory, and those who look at it at NOW_MS."""

    def __init__(self, path: Path) -> None:
        self.room = Room()
        self.reads = Failing(self.room)
        jobs = InlineJobs(self.room)
        self.inspector = SqliteInspector(self.reads, path)
        self.positions = SqlitePositions(self.reads)
        self.settings = SqliteSettings(self.reads, jobs)  # type: ignore[arg-type]
        self.trail = SqliteTrail(jobs)  # type: ignore[arg-type]

    def rows(self, *at_ms: int) -> list[str]:
        """Waiting rows that were accepted so many milliseconds after the start; their ids."""
        ids = []
        for ms in at_ms:
            given = event()
            self.room.append(given)
            ids.append(given.id)
            self.change("UPDATE outbox SET accepted_at_ms = ? WHERE event_id = ?", START_MS + ms)
        return ids

    def change(self, statement: str, *values: Any) -> None:
        if "event_id" in statement:
            [(newest,)] = self.room.connection.execute(
                "SELECT event_id FROM outbox ORDER BY seq DESC LIMIT 1"
            )
            values = (*values, newest)
        self.room.connection.execute(statement, values)

    def settle(self, count: int, **named: Any) -> None:
        """Settle the oldest waiting rows."""
        batch = self.room.claim(count)
        assert batch
        seqs = [entry.seq for entry in batch.entries]
        made = {name: [make(seq) for seq in seqs] for name, make in named.items()}
        assert self.room.settle(batch.claim, **made) == 0


class Failing(Inline):
    """Reads; `fault` is raised by the next one."""

    fault: Exception | None = None

    async def run(self, work: Any, *args: Any, **named: Any) -> Any:
        fault, self.fault = self.fault, None
        if fault:
            raise OutboxUnavailableError from fault
        return await super().run(work, *args, **named)

    run_soon = run
