"""What the fake Inngest holds: the events it has stored and the runs they started.

An id starts one run in 24 hours, counted from its first run. The invariant: an event that is not
here is in no answer of the REST API and has started no run, whatever the Event API answered.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from service.dev.fake_inngest.ledger import Arrival
from service.dev.fake_inngest.ulids import ulids

RUN_ONCE_SECONDS = 86_400.0
_RUN_ONCE_MS = int(RUN_ONCE_SECONDS * 1000)
_LAST_ULID = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    internal_id TEXT PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, ts INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL, event BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, internal_id TEXT NOT NULL, id TEXT NOT NULL,
    started_at_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_by_id ON runs (id, started_at_ms);
CREATE INDEX IF NOT EXISTS runs_by_event ON runs (internal_id);
"""
_INSERT_EVENT = "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_RUN = """
INSERT INTO runs SELECT :run_id, :internal_id, :id, :now_ms WHERE NOT EXISTS (
    SELECT 1 FROM runs WHERE id = :id AND started_at_ms > :now_ms - :once_ms)
"""
_FIND = "SELECT id, internal_id, name, ts, received_at_ms, event FROM events WHERE internal_id = ?"
_PAGE = """
SELECT id, internal_id, name, ts, received_at_ms, event FROM events
WHERE internal_id < :cursor AND received_at_ms BETWEEN :after_ms AND :before_ms
    AND (:name IS NULL OR name = :name)
ORDER BY internal_id DESC LIMIT :limit
"""


class Run(msgspec.Struct, frozen=True, gc=False):
    """A run that an event started."""

    run_id: str
    internal_id: str
    started_at_ms: int


class EventStore:
    """Stored events and their runs, in `path`, or in a temporary file (None) that goes with it.

    The file outlives a kill of the process, not a power cut.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._connection = sqlite3.connect(path or "", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def store(self, arrivals: Sequence[Arrival], now_ms: int) -> None:
        """Hold these events, all or none, and start a run for each id that may run."""
        run_ids = ulids((now_ms << 80) | secrets.randbits(79), len(arrivals))
        rows = [
            (one.server_id, one.id, one.name, one.ts, one.received_at_ms, one.event)
            for one in arrivals
        ]
        runs = [
            {
                "run_id": run_id,
                "internal_id": one.server_id,
                "id": one.id,
                "now_ms": now_ms,
                "once_ms": _RUN_ONCE_MS,
            }
            for one, run_id in zip(arrivals, run_ids, strict=True)
        ]
        self._connection.execute("BEGIN")
        with self._connection:
            self._connection.executemany(_INSERT_EVENT, rows)
            self._connection.executemany(_INSERT_RUN, runs)

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
        """At most `limit` events below `cursor`, newest first by Inngest's own id."""
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

    def runs_of(self, internal_id: str) -> list[Run]:
        """The runs that this event started."""
        query = "SELECT run_id, internal_id, started_at_ms FROM runs WHERE internal_id = ?"
        return [Run(*row) for row in self._connection.execute(query, (internal_id,))]

    @property
    def event_count(self) -> int:
        """How many events are held."""
        return self._count("SELECT count(*) FROM events")

    @property
    def ids(self) -> set[str]:
        """Every id that is held."""
        return {one for (one,) in self._connection.execute("SELECT DISTINCT id FROM events")}

    @property
    def id_count(self) -> int:
        """How many different ids are held."""
        return self._count("SELECT count(DISTINCT id) FROM events")

    @property
    def run_count(self) -> int:
        """How many runs were started."""
        return self._count("SELECT count(*) FROM runs")

    @property
    def most_runs_of_an_id(self) -> int:
        """How many runs the id with the most of them started."""
        return self._count(
            "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM runs GROUP BY id)"
        )

    def clear(self) -> None:
        """Forget everything."""
        self._connection.executescript("DELETE FROM events; DELETE FROM runs")

    def _count(self, query: str) -> int:
        count: int = self._connection.execute(query).fetchone()[0]
        return count
