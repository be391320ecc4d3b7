"""A move into an SQLite outbox whose syncs fail, in the migration and at pages.

The move is repeated until it has finished; then all its events count as answered. A reader keeps
the target open, as `outbox tail` does, so that SQLite does not mend the log at a close.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

from inngest_outbox.bootstrap.operations import move_outbox
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support.power_cuts.answers import AnswersFile
from tests.support.power_cuts.small_files import DATABASE, LIMITS, LOG
from tests.support.storage import event

EVENTS = 600
FAILURES = 4


class MoveLoad:
    def __init__(self, folder: Path) -> None:
        self._target = folder / DATABASE
        self._faults = Path(os.environ["DISK_SHIM_FAULTS"])
        self._answers = AnswersFile(folder)
        self.failures = 0

    def run(self) -> None:
        with tempfile.TemporaryDirectory() as elsewhere, contextlib.ExitStack() as stack:
            source = Path(elsewhere) / "source.db"
            ids = asyncio.run(filled(source))
            self._faults.write_text(LOG)
            while not self._passed(source):
                reader = sqlite3.connect(self._target)
                stack.enter_context(contextlib.closing(reader))
                reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
            self._answers.tell(ids)
        asyncio.run(served(self._target))

    def _passed(self, source: Path) -> bool:
        """True once the move has finished. The syncs of its first pages may fail."""
        try:
            move_outbox(
                f"sqlite:///{source}", f"sqlite:///{self._target}", actor="a", progress=self._page
            )
        except OutboxUnavailableError:
            self.failures += 1
            return False
        return True

    def _page(self, done: int, _: int) -> None:
        if self.failures < FAILURES and done >= EVENTS * self.failures // FAILURES:
            self._faults.write_text(LOG)


async def filled(path: Path) -> list[str]:
    events = [event(size=300) for _ in range(EVENTS)]
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await asyncio.gather(*(outbox.intake.append(one) for one in events))
    return [one.id for one in events]


async def served(path: Path) -> None:
    """The new outbox at work, so that cuts after the move are tried too."""
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        for _ in range(100):
            await outbox.intake.append(event())


def run(folder: Path) -> None:
    load = MoveLoad(folder)
    load.run()
    assert load.failures, "no sync failed"
