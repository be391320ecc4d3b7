"""The commit: one transaction over a group of items, and what to try when it fails.

Owns the writing connection. An append is synced before its result is handed out. A claim or a
settlement alone is not: a power cut that forgets one costs a repeat under the same id, which
Inngest drops. It is on disk with the next append, or a second later.

The invariant: after an I/O error nothing is committed until the log has been copied into the
database, emptied and preallocated again. A failed sync leaves a hole in the log: frames behind the
hole look synced, but recovery after a power cut stops before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from service.errors import OutboxUnavailableError
from service.observe.recorder import Recorder
from service.outbox.sqlite.connection import SqliteConnection, open_onlooker, open_writer
from service.outbox.sqlite.faults import FaultScope, is_io_error, scope_of
from service.outbox.sqlite.lock import WriterLock
from service.outbox.sqlite.timings import WriterTimings
from service.outbox.sqlite.wal import WriteAheadLog
from service.outbox.sqlite.work import Group, Waiting, WorkKind

T = TypeVar("T")
# Writes a page each time; an UPDATE that changes nothing writes none.
TOUCH = "PRAGMA user_version = 0"

log = structlog.get_logger(__name__)


class Preparation(Protocol):
    """The steps before the first commit. Each is repeated until it succeeds, then never again."""

    async def migrate(self) -> None:
        """Bring the file to the schema of this code."""
        ...

    async def run(self, connection: SqliteConnection) -> None:
        """Recover what an earlier process left."""
        ...


class SqliteCommits:
    """Transactions over the writing connection of the outbox at `path`, which `lock` holds."""

    def __init__(
        self,
        path: Path,
        lock: WriterLock,
        preparation: Preparation,
        recorder: Recorder,
        timings: WriterTimings,
    ) -> None:
        self._path = path
        self._lock = lock
        self._preparation = preparation
        self._recorder = recorder
        self._timings = timings
        self._log = WriteAheadLog(path)
        self._loop = asyncio.get_running_loop()  # reading it is a system call each time
        self._stack = contextlib.AsyncExitStack()
        # A connection that only reads. While it is open, closing the writing one copies nothing.
        self._guard = contextlib.AsyncExitStack()
        self._is_guarded = False
        self._connection: SqliteConnection | None = None
        self._is_synced_mode: bool | None = None  # what the connection is set to, None: unknown
        self.sync_due_at: float | None = None
        self.count = 0

    async def open(self) -> None:
        """Open the connection with a log that can be trusted. Raises OutboxUnavailableError."""
        await self._preparation.migrate()
        if not self._is_guarded:
            guard = await self._guard.enter_async_context(open_onlooker(self._path))
            await guard.run(_begin_guard)
            self._is_guarded = True
        connection = await self._stack.enter_async_context(open_writer(self._path))
        try:
            await self._noting_faults(self._prepare(connection))
        except BaseException:
            await self.close()
            raise
        self._is_synced_mode = True
        self._connection = connection

    async def _prepare(self, connection: SqliteConnection) -> None:
        if self._lock.suspects_log:
            await connection.run(self._log.renew)
            self._lock.suspect_log(suspected=False)
        else:
            await connection.run(self._log.preallocate)
        await self._preparation.run(connection)

    async def close(self) -> None:
        """Close the connection. On a disk that hangs, abandon it."""
        self._connection = None
        await _close_quietly(self._stack)

    async def stop(self) -> None:
        """Close the connection for good. A log that can be trusted is emptied.

        SQLite copies the log into the database when the last connection closes, unless that
        connection only reads. So the guard is closed first where the log can be trusted, else last.
        """
        if not self._lock.suspects_log:
            await _close_quietly(self._guard)
        await self.close()
        await _close_quietly(self._guard)

    async def probe(self) -> None:
        """Find out whether the outbox can be written, by writing through a new connection.

        Raises OutboxUnavailableError.
        """
        await self.close()
        await self.open()
        await self.run(write_something)

    async def commit_once(self, group: Group) -> Sequence[Sequence[Any]]:
        """One transaction in one hop to the thread; the results of each kind.

        An empty group writes a page too, so that its sync covers earlier commits.
        """
        work = [(kind, waiting.items) for kind, waiting in group.items()]
        synced = not group or any(kind.synced for kind in group)
        began = time.perf_counter()
        try:
            if self._connection is None:
                await self.open()
            mode = self._mode(synced=synced)
            self._is_synced_mode = None  # a failure may come before the statement or after it
            results = await self.run(transact, work, mode)
            self._is_synced_mode = synced
        finally:
            self.count += 1
            self._recorder.observe("commit_seconds", time.perf_counter() - began)
        if synced:
            self.sync_due_at = None
        elif self.sync_due_at is None:
            self.sync_due_at = self._loop.time() + self._timings.sync_seconds
        return results

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work(connection, …)` between two transactions. Raises OutboxUnavailableError."""
        if self._connection is None:
            raise OutboxUnavailableError
        return await self._noting_faults(self._connection.run(work, *arguments))

    async def _noting_faults(self, hop: Awaitable[T]) -> T:
        """After an I/O error the log is not trusted and the connection is closed."""
        try:
            return await hop
        except OutboxUnavailableError as error:
            if is_io_error(error):
                self._lock.suspect_log(suspected=True)
                self._recorder.count("io_errors")
                log.error("disk_failed", reason=str(error))  # noqa: TRY400  (no fault of the code)
                await self.close()
            raise

    def _mode(self, *, synced: bool) -> str | None:
        """The statement that turns the sync of commits on or off, None when it is set already."""
        if synced is self._is_synced_mode:
            return None
        return f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}"


def _begin_guard(connection: sqlite3.Connection) -> None:
    """Make the first read, which takes the lock by which SQLite knows of this connection."""
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()


async def _close_quietly(stack: contextlib.AsyncExitStack) -> None:
    with contextlib.suppress(OutboxUnavailableError):
        await stack.aclose()


def retry_smaller(group: Group, error: Exception) -> list[Group]:
    """The smaller groups to commit instead of one that failed; none when that would not help.

    When one kind of work fails, the other kinds are tried without it: on a full disk, settlements
    without appends. When one item fails, the rest of its kind is tried without it.
    """
    scope = scope_of(error)
    if scope is FaultScope.STORE:
        return []
    if len(group) > 1:
        return [{kind: waiting} for kind, waiting in group.items()]
    if scope is FaultScope.KIND:
        return []
    return [
        {kind: Waiting([item], [future])}
        for kind, waiting in group.items()
        if len(waiting.items) > 1
        for item, future in zip(waiting.items, waiting.futures, strict=True)
    ]


def transact(
    connection: sqlite3.Connection,
    work: Sequence[tuple[WorkKind[Any, Any], Sequence[Any]]],
    mode: str | None,
) -> list[Sequence[Any]]:
    """Apply every kind's items and commit, after the statement `mode`; the results of each kind.

    All or nothing: a failure leaves no trace of the transaction.
    """
    if mode:
        connection.execute(mode)
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [kind.apply(connection, items) for kind, items in work]
        if not work:
            connection.execute(TOUCH)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def write_something(connection: sqlite3.Connection) -> None:
    """Find out whether the file can be written."""
    # A checkpoint makes room in a log that filled the disk.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    connection.execute(TOUCH)
