"""A pool of connections in virtual time, whose statements do what a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Self

import psycopg
from service.outbox.postgres.executor import PostgresExecutor

from tests.support.virtual_time import now

URL = "postgresql://there/outbox"
MAX_CONNECTIONS, CONNECTION_SECONDS = 3, 0.5


class Connection:
    """A session; `kinds` are the cursors that it was used with."""

    closed = False
    warned = True

    def __init__(self, world: World) -> None:
        self.world = world
        self.kinds: list[str] = []

    def cursor(self, *, binary: bool = False) -> Cursor:
        return Cursor(self, "binary" if binary else "text")


class Cursor:
    """Runs one statement: takes `seconds`, warns, fails, returns rows, as its world says."""

    def __init__(self, connection: Connection, kind: str = "planned") -> None:
        self._connection = connection
        self._rows: list[tuple[Any, ...]] | None = None
        connection.kinds.append(kind)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    @property
    def description(self) -> bool:
        return self._rows is not None

    async def execute(self, statement: str, given: Any) -> None:
        world = self._connection.world
        world.ran.append((statement, given))
        await asyncio.wait(
            [asyncio.ensure_future(world.may_end.wait())], timeout=world.takes_seconds
        )
        self._connection.warned |= world.warns
        self._connection.closed = world.closes
        if world.fails:
            raise world.fails
        self._rows = world.rows

    async def fetchall(self) -> list[tuple[Any, ...]]:
        assert self._rows is not None
        return self._rows


class World:
    """An executor, and all that it uses."""

    def __init__(self) -> None:
        self.options: list[tuple[Any, dict[str, Any]]] = []
        self.steps: list[Any] = []
        self.timeouts: list[float] = []
        self.connections: list[Connection] = []
        self.shut: list[tuple[float, Any]] = []
        self.ran: list[tuple[str, Any]] = []
        self.takes_seconds: float | None = 0.0
        self.may_end = asyncio.Event()
        self.warns = False
        self.closes = False
        self.fails: Exception | None = None
        self.refuses: Exception | None = None
        self.rows: list[tuple[Any, ...]] | None = [(1,)]

    def made(self) -> PostgresExecutor:
        return PostgresExecutor(URL, MAX_CONNECTIONS, CONNECTION_SECONDS)

    @property
    def psycopg(self) -> Any:
        """What stands for the package."""
        return SimpleNamespace(Error=psycopg.Error, AsyncClientCursor=Cursor)

    def pool(self, conninfo: str, **options: Any) -> World:
        self.options.append((conninfo, options))
        return self

    async def open(self) -> None:
        self.steps.append("open")

    async def close(self, **options: Any) -> None:
        running = [one for one in asyncio.all_tasks() if one.get_name() == "outbox-statement"]
        self.steps.append(("closed", options, len(running)))

    async def drain(self) -> None:
        self.steps.append("drained")

    @contextlib.asynccontextmanager
    async def connection(
        self,
        timeout: float,  # noqa: ASYNC109
    ) -> AsyncIterator[Connection]:
        self.timeouts.append(round(timeout, 6))
        if self.refuses:
            raise self.refuses
        self.connections.append(Connection(self))
        yield self.connections[-1]

    def shut_one(self, connection: Any) -> None:
        self.shut.append((round(now(), 6), connection))
        self.may_end.set()
