"""A service on a PostgreSQL outbox that is watched: how long posts take to arrive, how many arrive
in a burst, and what each statement reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.support.arrivals import Arrivals, noted_arrivals
from tests.support.beside import beside
from tests.support.fleet import Client, Process, client, environment, running
from tests.support.postgres_server import PostgresServer, find_binaries, needed_postgres
from tests.support.storage import PostgresStorage, eventually

_POSTERS = 32
_READ = """
SELECT queryid, query, calls, shared_blks_hit + shared_blks_read, total_exec_time
FROM pg_stat_statements JOIN pg_database AS d ON d.oid = dbid WHERE datname = current_database()
"""
_RESET = """
SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = current_database()
"""


@dataclass(frozen=True)
class Statement:
    """What one statement did in a while: pages and milliseconds are those of one call."""

    text: str
    calls: int
    pages: float
    milliseconds: float


@dataclass
class Watched:
    """An outbox that a service serves, and what was seen of it minute by minute.

    The server is one of `watched_postgres`. `rates` and `processor_us` are those of bursts.
    """

    url: str
    service: Process
    poster: Client
    arrivals: Arrivals
    server: PostgresServer
    p99_seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    processor_us: list[float] = field(default_factory=list)
    stats_seconds: list[float] = field(default_factory=list)
    statements: list[dict[int, Statement]] = field(default_factory=list)

    async def pace(self, seconds: float, per_second: float) -> None:
        """Time paced posts until their events arrive, and count what statements read meanwhile."""
        await asyncio.to_thread(self._ask, _RESET)
        began: dict[str, float] = {}

        async def post() -> None:
            at = time.monotonic()
            assert await self.poster.post(self.service.url) == 200
            began.setdefault(self.poster.accepted[-1], at)

        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as posts:
            while time.monotonic() < until:
                posts.create_task(post())
                await asyncio.sleep(1 / per_second)
        await self._all_arrived()
        waits = [self.arrivals.at[one] - at for one, at in began.items()]
        self.p99_seconds.append(statistics.quantiles(waits, n=100)[98])
        rows = await asyncio.to_thread(self._ask, _READ)
        self.statements.append(
            {one: Statement(text, n, read / n, ms / n) for one, text, n, read, ms in rows}
        )
        began_at = time.monotonic()
        async with PostgresStorage(self.url).open() as outbox:
            await outbox.inspector.stats()
        self.stats_seconds.append(time.monotonic() - began_at)

    async def burst(self, seconds: float) -> None:
        """Post as fast as it goes, and count what arrives."""

        async def post() -> None:
            while True:
                await self.poster.post(self.service.url)

        processor = self.server.processor_seconds()
        before, began = len(self.arrivals.at), time.monotonic()
        async with beside(*(post() for _ in range(_POSTERS))):
            await asyncio.sleep(seconds)
        await self._all_arrived()
        events = len(self.arrivals.at) - before
        self.rates.append(events / (time.monotonic() - began))
        self.processor_us.append((self.server.processor_seconds() - processor) / events * 1e6)

    def _ask(self, statement: str) -> list[tuple[int, str, int, float, float]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    async def _all_arrived(self) -> None:
        missing = set(self.poster.accepted)

        async def none_missing() -> bool:
            missing.difference_update(self.arrivals.at)
            return not missing

        await eventually(none_missing, within_seconds=60)
        self.poster.accepted.clear()


@contextlib.contextmanager
def watched_postgres() -> Iterator[PostgresServer]:
    """A server that syncs and counts what statements do; without pg_stat_statements tests skip."""
    binaries = find_binaries()
    if binaries and not any(binaries.parent.rglob("pg_stat_statements.*")):
        pytest.skip("this PostgreSQL has no pg_stat_statements")
    settings = {"shared_preload_libraries": "pg_stat_statements"}
    with needed_postgres(durable=True, settings=settings) as server:
        yield server


@contextlib.asynccontextmanager
async def watched(url: str, server: PostgresServer) -> AsyncIterator[Watched]:
    """A service on the outbox until the block ends: no post fails, the database is never lost."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    async with noted_arrivals() as arrivals, client() as poster:
        settings = environment(
            url, arrivals.url, OUTBOX_CONFIRM="off", OUTBOX_MAX_PENDING_PER_USER="1000000"
        )
        async with running("serve", environment=settings) as process:
            await poster.sign_in(process.url)
            yield Watched(url, process, poster, arrivals, server)
            assert not poster.refused
            assert not poster.broken
            assert not any("database_lost" in line for line in process.lines)
