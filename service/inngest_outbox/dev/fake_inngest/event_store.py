"""The store of the fake Inngest: its events, and the runs they started.

The invariant: an event that is not here is in no answer of the REST API and has started no run,
whatever the Event API answered. An event that comes again under its ULID is held twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from inngest_outbox.dev.fake_inngest.ledger import Arrival, MovableClock
from inngest_outbox.dev.fake_inngest.runs import Runs

_TICK_SECONDS = 0.02
_LAST_ULID = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    internal_id TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, ts INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL, event BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS events_by_ulid ON events (internal_id);
"""
_INSERT_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)"
_FIND = "SELECT id, internal_id, name, ts, received_at_ms, event FROM events WHERE internal_id = ?"
_PAGE = """
SELECT id, internal_id, name, ts, received_at_ms, event FROM events
WHERE internal_id < :cursor AND received_at_ms BETWEEN :after_ms AND :before_ms
    AND (:name IS NULL OR name = :name) AND name NOT LIKE 'inngest/%'
ORDER BY internal_id DESC LIMIT :limit
"""


class EventStore:
    """Stored events and their runs, in `path`, or in a temporary file (None) that goes with it.

    The file outlives a kill of the process, not a power cut.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._connection = sqlite3.connect(path or "", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_SCHEMA)
        self.runs = Runs(self._connection)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def store(self, arrivals: Sequence[Arrival], now_ms: int) -> None:
        """Hold these events, all or none, and start their runs.

        What the runs will send is held too; no list shows it before its moment.
        """
        self._connection.execute("BEGIN")
        with self._connection:
            self._hold(arrivals, now_ms)

    def _hold(self, arrivals: Sequence[Arrival], now_ms: int) -> None:
        rows = [(one.server_id, one.id, one.name, one.ts, now_ms, one.event) for one in arrivals]
        self._connection.executemany(_INSERT_EVENT, rows)
        for sent in self.runs.start(arrivals, now_ms):
            self._hold([sent], sent.received_at_ms)

    def find(self, internal_id: str) -> Arrival | None:
        """The event with Inngest's own id, None when it is not held."""
        row = self._connection.execute(_FIND, (internal_id,)).fetchone()
        return Arrival(*row) if row else None

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        name: str | None = None,
        after_ms: int = 0,
        before_ms: int = 1 << 62,
    ) -> list[Arrival]:
        """At most `limit` events below `cursor` stored in that time, newest ULID first."""
        rows = self._connection.execute(
            _PAGE,
            {
                "cursor": cursor or _LAST_ULID,
                "name": name,
                "after_ms": after_ms,
                "before_ms": before_ms,
                "limit": limit,
            },
        )
        return [Arrival(*row) for row in rows]

    @property
    def event_count(self) -> int:
        """The number of stored events."""
        return self._count("SELECT count(*) FROM events")

    @property
    def ids(self) -> set[str]:
        """Every id that is held."""
        return {one for (one,) in self._connection.execute("SELECT DISTINCT id FROM events")}

    @property
    def id_count(self) -> int:
        """The number of different ids that are stored."""
        return self._count("SELECT count(DISTINCT id) FROM events")

    def clear(self) -> None:
        """Forget everything."""
        self._connection.executescript("DELETE FROM events; DELETE FROM runs; DELETE FROM batched")

    def _count(self, query: str) -> int:
        count: int = self._connection.execute(query).fetchone()[0]
        return count


class Storing:
    """Moves accepted events into `store`, `rate` a second (None: before they are answered).

    A self-hosted Inngest answers from memory and stores later. What is queued when it stops is
    lost.
    """

    def __init__(self, store: EventStore, clock: MovableClock, rate: float | None) -> None:
        self.rate = rate
        self.lost = 0
        self._store = store
        self._clock = clock
        self._queue: deque[Arrival] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """The number of answered events that are not stored yet."""
        return len(self._queue)

    def accept(self, arrivals: Sequence[Arrival]) -> None:
        """Take events to store, in their order."""
        if self.rate is None and not self._queue:
            self._store.store(arrivals, self._clock.now_ms)
            return
        self._queue.extend(arrivals)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="fake-inngest-storing")

    async def stop(self) -> None:
        """Stop as a process does: what is queued is lost and counted."""
        self.lost += len(self._queue)
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        before, due = loop.time(), 0.0
        while self._queue:
            await asyncio.sleep(_TICK_SECONDS)
            now = loop.time()
            rate = float("inf") if self.rate is None else self.rate
            due = min(due + (now - before) * rate, float(len(self._queue)))
            before = now
            self._store_oldest(int(due))
            due -= int(due)

    def _store_oldest(self, count: int) -> None:
        if count:
            oldest = [self._queue.popleft() for _ in range(count)]
            self._store.store(oldest, self._clock.now_ms)
