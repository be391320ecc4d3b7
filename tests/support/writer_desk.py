"""A writer with commits that a test scripts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from service.errors import OutboxUnavailableError
from service.observe.recorder import NullRecorder
from service.outbox.sqlite.commit_delay import DelayPolicy
from service.outbox.sqlite.damage import Damage
from service.outbox.sqlite.timings import WriterTimings
from service.outbox.sqlite.writer import SqliteWriter
from tests.support.work_kinds import Commits, Kind, fault

FULL, BUSY, BROKEN = fault("SQLITE_FULL"), fault("SQLITE_BUSY"), fault("SQLITE_CONSTRAINT")


class Desk:
    def __init__(self, delay: DelayPolicy | None = None) -> None:
        self.first, self.second, self.blocking = Kind(), Kind(), Kind()
        self.commits = Commits()
        kinds = (self.first, self.second)
        self.writer = SqliteWriter(
            self.commits,  # type: ignore[arg-type]
            kinds,
            self.blocking,
            NullRecorder(),
            WriterTimings(
                stall_seconds=3.0,
                probe_seconds=0.5,
                delay=delay or DelayPolicy(),
                clock=asyncio.get_running_loop().time,
            ),
            Damage(Path("outbox.db")),
        )
        self.watchdog = self.writer.watchdog
        self.now = self.commits.loop.time

    def raising(self, *errors: Exception | None) -> None:
        """The next commits raise these errors, each where there is one."""
        left = list(errors)

        def before(group: object) -> None:
            del group
            if left and (error := left.pop(0)):
                raise error

        self.commits.before = before

    async def told(self, *futures: asyncio.Future[Any]) -> list[str]:
        """What their submitters get, as text."""
        return [str(one) for one in await asyncio.gather(*futures, return_exceptions=True)]


@contextlib.asynccontextmanager
async def desk(
    failure: OutboxUnavailableError | None = None, *, delay: DelayPolicy | None = None
) -> AsyncIterator[Desk]:
    made = Desk(delay)
    made.writer.start(failure)
    try:
        yield made
    finally:
        made.commits.before = made.commits.probing = lambda *_: None
        await made.writer.stop()
