"""A load on an SQLite outbox in a new folder.

Single events and calls of several, claims and settlements, checkpoints, purges, a second start, and
syncs that fail.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.power_cuts.answers import AnswersFile
from tests.support.power_cuts.small_files import DATABASE, LAST_PART, LIMITS, LOG, PART
from tests.support.storage import ask, deliver, event

T = TypeVar("T")
ROUNDS = 40
GROUP = 4
BYTES = 900


class PostsLoad:
    def __init__(self, folder: Path) -> None:
        self._path = folder / DATABASE
        self._faults = Path(os.environ["DISK_SHIM_FAULTS"])
        self._answers = AnswersFile(folder)

    async def run(self) -> None:
        """Twice, so that a start after a clean stop is recorded too."""
        for first in (0, ROUNDS // 2):
            async with open_sqlite_outbox(self._path, **LIMITS) as outbox:
                for number in range(first, first + ROUNDS // 2):
                    await self._round(outbox, number)

    async def _round(self, outbox: SqliteOutbox, number: int) -> None:
        if number % 6 == 4:
            self._faults.write_text(LOG)
        async with asyncio.TaskGroup() as group:
            for _ in range(GROUP):
                group.create_task(self._post(outbox))
            group.create_task(self._post_several(outbox))
        if number % 3 == 0:
            await self._deliver(outbox)
        if number % 8 == 0:
            await until_done(outbox.maintenance.maintain)
            await until_done(outbox.maintenance.maintain)
        if number % 20 in (10, 19):
            purge = outbox.repairs.purge
            await until_done(lambda: purge(older_than_seconds=-1, actor=None))

    async def _deliver(self, outbox: SqliteOutbox) -> None:
        """A claim and a settlement, which are not synced at once."""
        batch = await until_done(lambda: outbox.queue.claim(ask(3 * GROUP)))
        await until_done(lambda: deliver(outbox, batch))
        self._answers.tell(f"-{entry.event_id}" for entry in batch.entries)

    async def _post(self, outbox: SqliteOutbox) -> None:
        await self._answered([event(size=BYTES)], outbox)

    async def _post_several(self, outbox: SqliteOutbox) -> None:
        """One call: its last event is named so."""
        parts = [event(name=PART, size=BYTES) for _ in range(GROUP - 1)]
        await self._answered([*parts, event(name=LAST_PART, size=BYTES)], outbox)

    async def _answered(self, events: list[Event], outbox: SqliteOutbox) -> None:
        try:
            await outbox.intake.append_all(events, [None] * len(events))
        except OutboxUnavailableError:
            await asyncio.sleep(0.05)
        else:
            self._answers.tell(one.id for one in events)


async def until_done(act: Callable[[], Awaitable[T]]) -> T:
    """Again after each failure of the disk."""
    while True:
        try:
            return await act()
        except OutboxUnavailableError:
            await asyncio.sleep(0.05)


def run(folder: Path) -> None:
    asyncio.run(PostsLoad(folder).run())
