"""Counting what a piece of work asks of SQLite, of the database thread and of Inngest."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from unittest.mock import patch

import aiohttp

from inngest_outbox.outbox.sqlite.file.connection import SqliteConnection
from inngest_outbox.outbox.sqlite.file.log import WriteAheadLog

Costs = dict[str, int]
_WORDS = 5


_STORED_VALUE = "LOAD_SCOPE"
_BY_CLOCK = re.compile(f"EXPIRE_|{_STORED_VALUE}")


class Meter:
    """Counts while its block runs: statements by their first words, and hops."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def reset(self) -> None:
        self._counts.clear()

    def statement(self, text: str) -> None:
        self._counts[" ".join(text.split()[:_WORDS])] += 1

    def hop(self) -> None:
        self._counts["hops"] += 1

    def call(self) -> None:
        self._counts["calls"] += 1

    def counts(self) -> Costs:
        """The counts, without what the clock decides: ended leases, and small stored values
        that background tasks read in a hop each.
        """
        reads = sum(n for key, n in self._counts.items() if _STORED_VALUE in key)
        counts = {**self._counts, "hops": self._counts["hops"] - reads}
        return {key: n for key, n in sorted(counts.items()) if n and not _BY_CLOCK.search(key)}


def _connection(meter: Meter) -> type[sqlite3.Connection]:
    """A kind of connection that has its statements counted."""

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
            meter.statement(sql)
            return super().execute(sql, *args)

        def executemany(self, sql: str, rows: object) -> sqlite3.Cursor:
            rows = list(rows)
            for _ in rows:
                meter.statement(sql)
            return super().executemany(sql, rows)

    class Connection(sqlite3.Connection):
        # Makes its cursor in C, past the method below.
        def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
            meter.statement(sql)
            return super().execute(sql, *args)

        def executemany(self, sql: str, rows: object) -> sqlite3.Cursor:
            return self.cursor().executemany(sql, rows)

        def cursor(self, factory: object = None) -> sqlite3.Cursor:
            return super().cursor(factory or Cursor)

    return Connection


@contextlib.contextmanager
def metered() -> Iterator[Meter]:
    """Every connection to a file of SQLite that is opened inside is counted, whoever opens it."""
    meter = Meter()
    counting = _connection(meter)
    connect, run = sqlite3.connect, SqliteConnection.run
    request = aiohttp.ClientSession._request

    async def counted(
        self: SqliteConnection, work: Callable[..., object], *args: object, **kwargs: object
    ) -> object:
        if getattr(work, "__func__", None) is not WriteAheadLog.fill:  # comes by the clock
            meter.hop()
        return await run(self, work, *args, **kwargs)

    async def called(*args: object, **kwargs: object) -> aiohttp.ClientResponse:
        meter.call()
        return await request(*args, **kwargs)

    def opened(path: object, *args: object, **kwargs: object) -> sqlite3.Connection:
        if not path:  # the fake Inngest's, in memory
            return connect(path, *args, **kwargs)
        return connect(path, *args, **kwargs, factory=counting)

    with (
        patch.object(sqlite3, "connect", opened),
        patch.object(SqliteConnection, "run", counted),
        patch.object(aiohttp.ClientSession, "_request", called),
    ):
        yield meter
