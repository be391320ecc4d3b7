"""What the contract suite needs of a store: a place that can be opened, closed and opened again."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import uuid_utils

from inngest_outbox.bootstrap.stores import Outbox, read_event
from inngest_outbox.config.outbox_url import sqlite_path
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.model import Batch, ClaimRequest, Settlement
from inngest_outbox.outbox.postgres.database.pool import PoolTimings
from inngest_outbox.outbox.postgres.store import open_postgres_outbox
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from inngest_outbox.outbox.sqlite.timings import WriterTimings
from tests.support.memory_outbox import MemoryStorage

PATIENCE_SECONDS = 180.0
# A machine that stalls is no lost store. Tests of what callers get then pass their own timings.
PATIENT_WRITER = WriterTimings(stall_seconds=20.0)
PATIENT_POOL = PoolTimings(connection_seconds=20.0, statement_seconds=20.0, ask_seconds=20.0)
LIMITS = {"max_pending": 10_000, "max_pending_per_user": 10_000}
T = TypeVar("T")
_numbers = itertools.count(1)


class SqliteStorage:
    shared = False  # one writing process

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"sqlite:///{path}"

    @contextlib.asynccontextmanager
    async def open(self, **limits: Any) -> AsyncIterator[Outbox]:
        given = {**LIMITS, "timings": PATIENT_WRITER, **limits}
        async with open_sqlite_outbox(self._path, **given) as outbox:
            yield outbox


class PostgresStorage:
    shared = True  # any number of processes

    def __init__(self, url: str) -> None:
        self.url = url

    @contextlib.asynccontextmanager
    async def open(self, **limits: Any) -> AsyncIterator[Outbox]:
        given = {**LIMITS, "timings": PATIENT_POOL, "read_event": read_event, **limits}
        async with open_postgres_outbox(self.url, **given, recorder=NullRecorder()) as outbox:
            yield outbox


Storage = SqliteStorage | PostgresStorage | MemoryStorage


def storage_at(url: str) -> Storage:
    """The storage that an OUTBOX_URL names."""
    path = sqlite_path(url)
    return PostgresStorage(url) if path is None else SqliteStorage(path)


def event(user_id: str = "u-1", *, name: str = "documents/aws.index", size: int = 200) -> Event:
    event_id = str(uuid_utils.uuid7())
    payload = b'{"id":"%s","n":%d,"pad":"' % (event_id.encode(), next(_numbers))
    payload += b"x" * max(0, size - len(payload) - 2) + b'"}'
    return Event(event_id, name, user_id, user_id, int(time.time() * 1000), payload)


def ask(max_events: int = 100, **changes: object) -> ClaimRequest:
    wanted = {"max_bytes": 1_000_000, "lease_seconds": 30.0, **changes}
    return ClaimRequest(max_events, **wanted)


async def append_all(outbox: Outbox, count: int, user_id: str = "u-1") -> list[Event]:
    """Append events in their order, up to 100 in a commit."""
    events = [event(user_id) for _ in range(count)]
    for start in range(0, count, 100):
        group = events[start : start + 100]
        await asyncio.gather(*(outbox.intake.append(each) for each in group))
    return events


async def claim(outbox: Outbox, wanted: ClaimRequest | None = None) -> Batch:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await outbox.queue.claim(wanted or ask())


async def claims_nothing(outbox: Outbox, wanted: ClaimRequest | None = None) -> bool:
    """Whether a claim still waits after an event of another kind has gone by: a short pause."""
    waiting = asyncio.create_task(outbox.queue.claim(wanted or ask()))
    done, _ = await asyncio.wait({waiting}, timeout=0.15)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return not done


async def deliver(outbox: Outbox, batch: Batch) -> int:
    seqs = [entry.seq for entry in batch.entries]
    return await outbox.queue.settle(Settlement(batch.claim, delivered=seqs))


async def eventually(
    look: Callable[[], Awaitable[T] | T],
    wanted: Callable[[T], bool] = bool,
    *,
    within_seconds: float = PATIENCE_SECONDS,
) -> T:
    """Look until it is so: seldom where it takes long, for a look costs the service's time too."""
    clock = asyncio.get_running_loop().time  # virtual where the loop's is
    deadline = clock() + within_seconds
    pause = 0.01
    while True:
        found = look()
        seen = await found if inspect.isawaitable(found) else found
        if wanted(seen):
            return seen
        assert clock() < deadline, f"never came, last seen: {seen!r}"
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def ids(batch: Batch) -> list[str]:
    return [entry.event_id for entry in batch.entries]
