"""The reading connection of the process that writes the outbox.

It is opened at the first read, so that a service also starts on a full disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.connection import SqliteConnection, open_reader
from service.outbox.sqlite.damage import Damage
from service.outbox.sqlite.timings import WriterTimings

P = ParamSpec("P")
T = TypeVar("T")


class Reads(Protocol):
    """A connection for reading; each call is one short read transaction."""

    async def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`work(connection, …)` on the connection's thread. Raises OutboxUnavailableError."""
        ...


class SqliteReader:
    """The reading connection of the outbox at `path`, opened at the first read."""

    def __init__(self, path: Path, timings: WriterTimings, damage: Damage) -> None:
        self._path = path
        self._timings = timings
        self._damage = damage
        self._stack = contextlib.AsyncExitStack()
        self._opening = asyncio.Lock()
        self._connection: SqliteConnection | None = None
        self._closed = False

    async def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`work(connection, …)` on the connection's thread. Raises OutboxUnavailableError."""
        try:
            return await (await self._opened()).run(work, *args, **kwargs)
        except OutboxUnavailableError as error:
            self._damage.note(error)
            raise

    async def run_soon(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `run`, for a request: it does not wait for a disk that hangs."""
        try:
            async with asyncio.timeout(self._timings.stall_seconds):
                return await self.run(work, *args, **kwargs)
        except TimeoutError as error:
            raise OutboxUnavailableError("The outbox's disk does not answer.") from error

    async def close(self) -> None:
        """Close the connection for good."""
        self._closed = True
        with contextlib.suppress(OutboxUnavailableError):
            await self._stack.aclose()

    async def _opened(self) -> SqliteConnection:
        if self._closed:
            raise OutboxUnavailableError("The outbox is not open.")
        async with self._opening:
            if self._connection is None:
                self._connection = await self._stack.enter_async_context(open_reader(self._path))
        return self._connection
