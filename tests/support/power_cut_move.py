"""A move into an SQLite outbox whose syncs fail, run as a process of its own to be recorded.

Arguments: the folder of the target, the number of events, and what is broken on purpose. Passes are
repeated until the move has finished; then every id is written to the file `answers`. A reader keeps
the target open, as `outbox watch` does, so that SQLite does not mend the log at a close.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import tempfile
from pathlib import Path

import structlog

from service.bootstrap.transfer import move_outbox
from service.errors import OutboxUnavailableError
from service.outbox.sqlite import transfer
from service.outbox.sqlite.store import open_sqlite_outbox
from tests.support.power_cut_load import LIMITS
from tests.support.storage import event

LOG = "outbox.db-wal"


class MoveLoad:
    def __init__(self, folder: Path, count: int) -> None:
        self._target = folder / "outbox.db"
        self._count = count
        self._faults = Path(os.environ["DISK_SHIM_FAULTS"])
        self._answers = os.open(folder / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.failures = 0

    def run(self) -> None:
        with tempfile.TemporaryDirectory() as elsewhere, contextlib.ExitStack() as stack:
            source = Path(elsewhere) / "source.db"
            ids = asyncio.run(filled(source, self._count))
            self._faults.write_text(LOG)
            while not self._passed(source):
                reader = sqlite3.connect(self._target)
                stack.enter_context(contextlib.closing(reader))
                reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
            os.write(self._answers, "".join(f"{one}\n" for one in ids).encode())
        asyncio.run(served(self._target))

    def _passed(self, source: Path) -> bool:
        """Whether a pass finished the move. The syncs of its first pages may fail."""
        try:
            moved = move_outbox(
                f"sqlite:///{source}", f"sqlite:///{self._target}", actor="a", progress=self._page
            )
        except OutboxUnavailableError:
            self.failures += 1
            return False
        return moved.finished

    def _page(self, done: int) -> None:
        if done == self._count * self.failures // 3:
            self._faults.write_text(LOG)


async def filled(path: Path, count: int) -> list[str]:
    events = [event(size=700) for _ in range(count)]
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await asyncio.gather(*(outbox.intake.append(one) for one in events))
    return [one.id for one in events]


async def served(path: Path) -> None:
    """The new outbox at work, so that cuts after the move are tried too."""
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        for _ in range(100):
            await outbox.intake.append(event())


def break_on_purpose(what: str) -> None:
    """`nothing`; `sync`: the move's commits are not synced."""
    if what == "sync":
        transfer.sqlite3 = Unsynced  # type: ignore[assignment]


class Unsynced:
    """`sqlite3` whose connections sync nothing."""

    Error = sqlite3.Error

    @staticmethod
    def connect(path: Path, isolation_level: None) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=isolation_level)
        connection.execute("PRAGMA synchronous = OFF")
        return connection


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    break_on_purpose(sys.argv[3])
    load = MoveLoad(Path(sys.argv[1]), int(sys.argv[2]))
    load.run()
    assert load.failures == {"nothing": 4, "sync": 1}[sys.argv[3]], load.failures
