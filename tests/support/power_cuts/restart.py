"""What the service finds when it starts on a disk after a power cut, and what it then delivers.

The recovery is the service's own. Only its clocks and its database's threads are replaced: the work
runs inline.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.power_cuts.answers import Answers
from tests.support.power_cuts.content import Content
from tests.support.power_cuts.migration_load import HALF_MIGRATED
from tests.support.power_cuts.redelivery import Redelivery
from tests.support.power_cuts.small_files import DATABASE, LIMITS, PART, keep_files_small
from tests.support.simulation.inline_world import Disk, install
from tests.support.storage import ask, deliver
from tests.support.virtual_time import VirtualLoop

T = TypeVar("T")
STORED = "SELECT event_id, seq IN (SELECT seq FROM outbox_ready) FROM outbox ORDER BY seq"
NEWEST = "SELECT name FROM outbox ORDER BY seq DESC LIMIT 1"
ASTRAY = """
SELECT count(*) FROM outbox WHERE (seq IN (SELECT seq FROM outbox_ready))
    + (seq IN (SELECT seq FROM outbox_claims)) + (seq IN (SELECT seq FROM outbox_sent))
    + (seq IN (SELECT seq FROM outbox_done)) <> 1
"""


@dataclass(frozen=True)
class Found:
    """What became of one outbox: the ids in it, and what is wrong with it, if anything."""

    ids: frozenset[str] = frozenset()
    fault: str | None = None


class Restarts:
    """Starts the service again and again, in the folder `folder`, on one thread."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        keep_files_small()
        self._folder = folder
        self._copies: dict[tuple[int, int], Found] = {}
        self._loop = VirtualLoop()
        clocks = install(self._loop, _InlineDisk(random.Random(0)))
        clocks.jump_seconds = time.clock_gettime(time.CLOCK_REALTIME) - clocks.wall()
        self._redelivery = Redelivery(chance, clocks)

    def look(self, files: Mapping[str, Content]) -> dict[str, Found]:
        """Each outbox among the files, by its path; the service's own also when it is gone."""
        with self._written(files):
            copies = {path for path in files if path.endswith(".db")} - {DATABASE}
            found = {path: self._look_at_copy(path, files[path]) for path in copies}
            return {**found, DATABASE: self._loop.run_until_complete(self._start(DATABASE))}

    def deliver(self, files: Mapping[str, Content], answers: Answers) -> list[str]:
        """Deliver to an Inngest that knows what is in the answers; what is wrong with it."""
        with self._written(files):
            delivered = self._redelivery.faults(self._folder / DATABASE, answers)
            return self._loop.run_until_complete(delivered)

    @contextlib.contextmanager
    def _written(self, files: Mapping[str, Content]) -> Iterator[None]:
        try:
            for path, content in files.items():
                file = self._folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                content.save(file)
            yield
        finally:
            shutil.rmtree(self._folder)
            self._folder.mkdir()

    def _look_at_copy(self, path: str, content: Content) -> Found:
        """What is in a backup, from memory where it was seen before."""
        found = self._copies.get(content.mark)
        if found is None:
            found = self._loop.run_until_complete(self._start(path))
            self._copies[content.mark] = found
        return found

    async def _start(self, path: str) -> Found:
        try:
            async with open_sqlite_outbox(self._folder / path, **LIMITS) as outbox:
                found, pending = await outbox.writer.between_commits(_checked)
                claimed = await _delivered(outbox)
        except Exception as error:  # noqa: BLE001  (on a damaged file anything may fail)
            return Found(fault=f"it does not start: {error!r}")
        if found.fault is None and sorted(claimed) != sorted(pending):
            return Found(found.ids, "not every pending event is delivered once")
        return found


def _checked(connection: sqlite3.Connection) -> tuple[Found, list[str]]:
    """What is in the file, and which events are pending."""

    def rows(statement: str) -> list[tuple[Any, ...]]:
        return connection.execute(statement).fetchall()

    stored = rows(STORED)
    fault = None
    if rows("PRAGMA integrity_check") != [("ok",)]:
        fault = "it is damaged"
    elif rows(ASTRAY) != [(0,)]:
        fault = "a row is in no place, or in two"
    elif rows(NEWEST) == [(PART,)]:
        fault = "a call is stored in part"
    elif rows(HALF_MIGRATED) != [(0,)]:
        fault = "a migration is applied and not recorded, or the reverse"
    ids = frozenset(event_id for event_id, _ in stored)
    return Found(ids, fault), [event_id for event_id, is_pending in stored if is_pending]


async def _delivered(outbox: SqliteOutbox) -> list[str]:
    """Deliver all that is pending; the ids in their order."""
    claimed: list[str] = []
    while outbox.undelivered:
        batch = await outbox.queue.claim(ask(1000))
        claimed += [entry.event_id for entry in batch.entries]
        await deliver(outbox, batch)
    return claimed


class _InlineDisk(Disk):
    async def run(self, work: Callable[..., T], *args: Any, **named: Any) -> T:
        return work(*args, **named)
