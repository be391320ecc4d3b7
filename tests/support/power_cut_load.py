"""A load on an SQLite outbox, run as a process of its own so that its writes can be recorded.

Arguments: the folder, the number of rounds, and what is broken on purpose (`nothing` at best). Each
id that was answered is written to the file `answers` in the folder, and again with a minus when it
was delivered and may be purged.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import structlog

from service.errors import OutboxUnavailableError
from service.outbox.event import Event
from service.outbox.sqlite import commit
from service.outbox.sqlite.lock import WriterLock
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.storage import ask, deliver, event

T = TypeVar("T")
GROUP = 6
PART, LAST_PART = "part", "last part"
LIMITS = {"max_pending": 100_000, "max_pending_per_user": 100_000}


class Load:
    def __init__(self, folder: Path, rounds: int) -> None:
        self._path = folder / "outbox.db"
        self._rounds = rounds
        self._faults = Path(os.environ["DISK_SHIM_FAULTS"])
        self._answers = os.open(folder / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def run(self) -> None:
        """Twice, so that a start after a clean stop is recorded too."""
        for first in (0, self._rounds // 2):
            async with open_sqlite_outbox(self._path, **LIMITS) as outbox:
                for number in range(first, first + self._rounds // 2):
                    await self._round(outbox, number)

    async def _round(self, outbox: SqliteOutbox, number: int) -> None:
        if number % 6 == 4:
            self._faults.write_text("outbox.db-wal")
        async with asyncio.TaskGroup() as group:
            for _ in range(GROUP):
                group.create_task(self._post(outbox))
            group.create_task(self._post_several(outbox))
        if number % 3 == 0:
            await self._deliver(outbox)
        if number % 15 == 0:
            await until_done(outbox.maintenance.maintain)
            await until_done(outbox.maintenance.maintain)
        if number % 20 == 19:
            purge = outbox.repairs.purge
            await until_done(lambda: purge(older_than_seconds=-1, actor=None))

    async def _deliver(self, outbox: SqliteOutbox) -> None:
        """A claim and a settlement, which are not synced at once."""
        batch = await until_done(lambda: outbox.queue.claim(ask(GROUP)))
        await until_done(lambda: deliver(outbox, batch))
        gone = "".join(f"-{entry.event_id}\n" for entry in batch.entries)
        os.write(self._answers, gone.encode())

    async def _post(self, outbox: SqliteOutbox) -> None:
        await self._answered([event(size=1500)], outbox)

    async def _post_several(self, outbox: SqliteOutbox) -> None:
        """One call: its last event is named so."""
        parts = [event(name=PART, size=1500) for _ in range(GROUP - 1)]
        await self._answered([*parts, event(name=LAST_PART, size=1500)], outbox)

    async def _answered(self, events: list[Event], outbox: SqliteOutbox) -> None:
        try:
            await outbox.intake.append_all(events, [None] * len(events))
        except OutboxUnavailableError:
            await asyncio.sleep(0.05)
        else:
            os.write(self._answers, "".join(f"{one.id}\n" for one in events).encode())


async def until_done(act: Callable[[], Awaitable[T]]) -> T:
    """Again after each failure of the disk."""
    while True:
        try:
            return await act()
        except OutboxUnavailableError:
            await asyncio.sleep(0.05)


def break_on_purpose(what: str) -> None:
    """`nothing`; `sync`: commits are not synced; `trust`: a log with a hole goes on being used."""
    if what == "sync":
        commit.SqliteCommits._mode = lambda self, *, synced: "PRAGMA synchronous = NORMAL"  # type: ignore[method-assign]
    if what == "trust":
        WriterLock.suspect_log = lambda self, *, suspected: None  # type: ignore[method-assign]


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    break_on_purpose(sys.argv[3])
    asyncio.run(Load(Path(sys.argv[1]), int(sys.argv[2])).run())
