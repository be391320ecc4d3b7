"""One SQLite connection on one thread: how it is opened, used and given up.

Durability rests on three lines here: WAL and synchronous=FULL, which sync the WAL at each commit,
and no checkpoint of SQLite's own, which drops errors. Only the writing connection writes and
checkpoints: SQLite before 3.51.3 can lose a commit when two connections do so at the same instant
(https://sqlite.org/wal.html#walresetbug).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast
from urllib.parse import quote

import aiosqlite

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.queries import Queries
from inngest_outbox.outbox.sqlite.file.faults import Corruption, unavailable_if_sqlite_fails
from inngest_outbox.shielded import shielded

SQL = Queries(Path(__file__).parent.parent / "queries")
"""The statements of an SQLite outbox."""

_BUSY_MS = 1000
_CLOSE_SECONDS = 3.0
_WRITER_PRAGMAS = f"""
PRAGMA busy_timeout = {_BUSY_MS};
PRAGMA wal_autocheckpoint = 0;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA fullfsync = ON;
PRAGMA checkpoint_fullfsync = ON;
PRAGMA journal_size_limit = 33554432;
PRAGMA cache_size = -32768;
PRAGMA temp_store = MEMORY;
PRAGMA secure_delete = ON;
"""
_READER_PRAGMAS = f"""
PRAGMA busy_timeout = {_BUSY_MS};
PRAGMA wal_autocheckpoint = 0;
PRAGMA query_only = 1;
"""

P = ParamSpec("P")
T = TypeVar("T")
_Hop = Callable[..., Awaitable[Any]]


class SqliteConnection:
    """A connection whose whole transactions run in one hop to its own thread."""

    def __init__(self, thread: aiosqlite.Connection, raw: list[sqlite3.Connection]) -> None:
        self._thread = thread
        self._raw = raw
        self.closed = False

    async def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`work(connection, …)` on the connection's thread; its result.

        Cancelling does not stop work that has begun. Raises OutboxUnavailableError for SQLite's
        errors, from it, and when the connection was closed.
        """
        if self.closed:
            raise OutboxUnavailableError
        with unavailable_if_sqlite_fails():
            # aiosqlite's public methods take one statement a hop; a transaction needs this door.
            hop = cast("_Hop", self._thread._execute)  # noqa: SLF001
            result: T = await hop(work, self._raw[0], *args, **kwargs)
            return result

    def interrupt(self) -> None:
        """End the statement that is running, from any thread."""
        self._raw[0].interrupt()


@contextlib.asynccontextmanager
async def open_writer(path: Path) -> AsyncIterator[SqliteConnection]:
    """The one connection that writes. Raises OutboxUnavailableError."""
    async with _open(str(path), _WRITER_PRAGMAS) as connection:
        yield connection


@contextlib.asynccontextmanager
async def open_reader(path: Path) -> AsyncIterator[SqliteConnection]:
    """A connection that can't write and never checkpoints. Raises OutboxUnavailableError."""
    async with _open(str(path), _READER_PRAGMAS) as connection:
        await connection.run(_accept_any_text)
        yield connection


@contextlib.contextmanager
def connect_writer(path: Path) -> Iterator[sqlite3.Connection]:
    """The writing connection of a command, which blocks. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(_WRITER_PRAGMAS)
        yield connection


@contextlib.contextmanager
def connect_read_only(path: Path, *, immutable: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection that reads and blocks; as `open_read_only`. Raises sqlite3.Error."""
    address = _read_only_address(path, immutable=immutable)
    with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
        _accept_any_text(connection)
        yield connection


def _read_only_address(path: Path, *, immutable: bool) -> str:
    return f"file:{quote(str(path))}?{'immutable=1' if immutable else 'mode=ro'}"


@contextlib.asynccontextmanager
async def open_read_only(path: Path, *, immutable: bool = False) -> AsyncIterator[SqliteConnection]:
    """A read-only connection for a process that is not the writer.

    It can't checkpoint, not even when it is the last to close. `immutable` is for a file that
    nobody writes; it needs no file beside it. Raises OutboxUnavailableError.
    """
    async with _open(
        _read_only_address(path, immutable=immutable), _READER_PRAGMAS, uri=True
    ) as connection:
        await connection.run(_accept_any_text)
        yield connection


def _accept_any_text(connection: sqlite3.Connection) -> None:
    """Decode text of a damaged row as far as it is UTF-8."""
    connection.text_factory = lambda text: text.decode(errors="replace")


@contextlib.asynccontextmanager
async def _open(path: str, pragmas: str, *, uri: bool = False) -> AsyncIterator[SqliteConnection]:
    raw: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        # Statements are cached by their text; autocommit leaves BEGIN and COMMIT to us.
        connection = sqlite3.connect(path, isolation_level=None, uri=uri)
        try:
            connection.executescript(pragmas)
        except sqlite3.Error:
            connection.close()
            raise
        raw.append(connection)
        return connection

    thread = _Thread(connect, iter_chunk_size=64)
    with unavailable_if_sqlite_fails():
        await thread.opened()
    connection = SqliteConnection(thread, raw)
    try:
        yield connection
    finally:
        connection.closed = True
        await _close(thread)


class _Thread(aiosqlite.Connection):
    """A connection's thread. It has ended when its connection could not be opened.

    aiosqlite then stops the thread and does not wait for it: it would answer a closed loop.
    """

    _ended: asyncio.Future[None] | None = None

    async def opened(self) -> None:
        """Start, and open the connection. Raises sqlite3.Error.

        Where it is cancelled, the connection is closed as soon as it is open.
        """
        opening = asyncio.ensure_future(self)
        try:
            await shielded(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(lambda _: self.stop())
            raise
        except sqlite3.Error:
            if self._ended:
                await self._ended
            raise

    def stop(self) -> asyncio.Future[None] | None:
        """Let the thread end; the future says when it has."""
        self._ended = super().stop()
        return self._ended


async def _close(thread: aiosqlite.Connection) -> None:
    """Close the connection. On a disk that hangs, abandon it. Raises OutboxUnavailableError."""
    closing = asyncio.ensure_future(thread.close())
    done, _ = await asyncio.wait([closing], timeout=_CLOSE_SECONDS)
    if not done:
        closing.add_done_callback(lambda late: late.cancelled() or late.exception())
        raise OutboxUnavailableError("The outbox's disk does not answer.")
    with unavailable_if_sqlite_fails():
        closing.result()


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
    """The reading connection of the outbox at `path`, opened at the first read.

    So a service also starts on a full disk.
    """

    def __init__(self, path: Path, corruption: Corruption, stall_seconds: float) -> None:
        self._path = path
        self._stall_seconds = stall_seconds
        self._corruption = corruption
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
            self._corruption.note(error)
            raise

    async def run_soon(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `run`, for a request: it does not wait for a disk that hangs."""
        try:
            async with asyncio.timeout(self._stall_seconds):
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
