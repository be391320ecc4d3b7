"""One thread and one virtual clock for code that has a database thread and a real clock.

`install` is for a process that does nothing else: it replaces the thread of a connection, the
clocks of the `time` module and `asyncio.to_thread`. The database's work then runs inside the event
loop, between two turns of a virtual loop.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, ParamSpec
from unittest import mock

from inngest_outbox.outbox.sqlite.file import connection as sqlite_connection
from tests.support.virtual_time import VirtualLoop, in_virtual_time

P = ParamSpec("P")
START_SECONDS = 1_800_000_000.0
_FAULTS = ("disk I/O error", "database or disk is full")


class Disk:
    """Where the database's work runs. Its faults are drawn from `chance`.

    `failing` is the share of transactions that fail before they begin, `hang_seconds` how long each
    takes beside its usual time. With `fails_next_append` the next transaction with new events fails
    at its end. `well_since` is when the last trouble ended, by the loop's clock.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.failing = 0.0
        self.hang_seconds = 0.0
        self.fails_next_append = False
        self.well_since = 0.0

    def trouble(self, *, failing: float = 0.0, hang_seconds: float = 0.0) -> None:
        """Fail or hang from now on."""
        self.failing, self.hang_seconds = failing, hang_seconds
        self.well_since = math.inf

    def heal(self) -> None:
        """All is well from now on."""
        self.failing = self.hang_seconds = 0.0
        self.fails_next_append = False
        self.well_since = asyncio.get_running_loop().time()

    async def run(self, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        await asyncio.sleep(self._chance.uniform(0.0001, 0.002) + self.hang_seconds)
        if self._chance.random() < self.failing:
            self._fail()
        return work(*args, **named)

    def commit(self) -> None:
        """Commit events, or fail once; the transaction is then rolled back."""
        if self.fails_next_append:
            self.fails_next_append = False
            self.well_since = max(self.well_since, asyncio.get_running_loop().time())
            self._fail()

    def _fail(self) -> NoReturn:
        raise sqlite3.OperationalError(self._chance.choice(_FAULTS))


class _Connection(sqlite3.Connection):
    _has_events = False

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "BEGIN IMMEDIATE":
            self._has_events = False
        elif statement.startswith("INSERT INTO outbox ("):
            self._has_events = True
        elif statement == "COMMIT" and self._has_events:
            InlineConnection.disk.commit()
        return super().execute(statement, *values)


_connect = functools.partial(sqlite3.connect, factory=_Connection)


class InlineConnection:
    """What the service needs of a connection's thread, without the thread."""

    disk: Disk

    def __init__(self, connect: Callable[[], sqlite3.Connection], iter_chunk_size: int) -> None:
        self._connect = connect
        self._raw: sqlite3.Connection | None = None

    async def opened(self) -> None:
        with mock.patch.object(sqlite3, "connect", _connect):
            self._raw = self._connect()
        await asyncio.sleep(0)

    async def _execute(self, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return await self.disk.run(work, *args, **named)

    async def close(self) -> None:
        if self._raw is not None:
            self._raw.close()


class Clocks:
    """The clocks of the process: virtual, and the wall clock may be moved by `jump_seconds`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.jump_seconds = 0.0

    def wall(self) -> float:
        return START_SECONDS + self._loop.time() + self.jump_seconds

    def monotonic(self) -> float:
        return self._loop.time()


def install(loop: VirtualLoop, disk: Disk) -> Clocks:
    """Make this process single-threaded and virtual; its wall clock can be moved."""
    clocks = Clocks(loop)
    InlineConnection.disk = disk
    sqlite_connection._Thread = InlineConnection  # type: ignore[assignment,misc]
    time.time = clocks.wall
    time.monotonic = clocks.monotonic
    time.perf_counter = clocks.monotonic
    asyncio.to_thread = _inline  # type: ignore[assignment]
    return clocks


async def _inline(work: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
    return work(*args, **named)


def in_one_thread(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """A test in virtual time whose SQLite outboxes have no threads. Only its loop's clock jumps."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        InlineConnection.disk = Disk(random.Random(1))
        with (
            mock.patch.object(sqlite_connection, "_Thread", InlineConnection),
            mock.patch.object(asyncio, "to_thread", _inline),
        ):
            in_virtual_time(test)(*args, **kwargs)

    return run
