"""The commits of a writer alone, on a file of one table, with kinds of work that insert into it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.outbox.sqlite.commit import SqliteCommits
from service.outbox.sqlite.connection import SqliteConnection
from service.outbox.sqlite.timings import WriterTimings
from service.outbox.sqlite.work import Waiting
from tests.support.delivery_world import Remembering
from tests.support.open_files import open_files
from tests.support.work_kinds import Kind

OFF_UNTIL_LATE, SYNCED = 1, 2  # what PRAGMA synchronous says


class Lock:
    suspects_log = False

    def suspect_log(self, *, suspected: bool) -> None:
        self.suspects_log = suspected


class Preparation:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.steps: list[str] = []
        self.error: Exception | None = None

    async def migrate(self) -> None:
        self.steps.append("migrate")
        if self._path.exists():
            return
        with contextlib.closing(sqlite3.connect(self._path)) as made:
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("CREATE TABLE IF NOT EXISTS t (n)")

    async def run(self, connection: SqliteConnection) -> None:
        self.steps.append("run")
        await connection.run(lambda raw: raw.execute("SELECT * FROM t").fetchall())
        if self.error:
            error, self.error = self.error, None
            raise error


class Inserts(Kind):
    """Inserts its items; remembers how the commit is synced."""

    def apply(self, connection: sqlite3.Connection, items: Sequence[Any]) -> list[Any]:
        [(mode,)] = connection.execute("PRAGMA synchronous").fetchall()
        self.told.append((mode,))
        for item in items:
            connection.execute("INSERT INTO t VALUES (?)", (item,))
        return [self.answer(item) for item in items]


class Made:
    def __init__(self, path: Path) -> None:
        self.path, self.lock, self.recorder = path, Lock(), Seen()
        self.preparation = Preparation(path)
        self.synced, self.lazy = Inserts(), Inserts(synced=False)
        timings = WriterTimings(sync_seconds=7.0)
        self.commits = SqliteCommits(path, self.lock, self.preparation, self.recorder, timings)  # type: ignore[arg-type]

    async def write(self, *kinds: Inserts) -> Any:
        return await self.commits.commit_once(
            {kind: Waiting([1], [loop_future()]) for kind in kinds}
        )

    def rows(self) -> int:
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as other:
            return len(other.execute("SELECT * FROM t").fetchall())

    def rows_without_log(self) -> int:
        address = f"file:{self.path}?immutable=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as other:
            return len(other.execute("SELECT * FROM t").fetchall())

    def descriptors(self) -> int:
        """How many of this process are of the log: one for each connection."""
        return len(open_files(f"{self.path}-wal"))


class Seen(Remembering):
    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        assert (name, labels) == ("commit_seconds", {})
        self.seconds.append(value)


def loop_future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def synchronous(connection: sqlite3.Connection) -> int:
    [(mode,)] = connection.execute("PRAGMA synchronous").fetchall()
    return int(mode)
