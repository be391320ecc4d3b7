"""The commit: one transaction over a group of items, and what to try when it fails.

Owns the writing connection. An append is synced before its result is handed out. A claim or a
settlement alone is not: a power cut that forgets one costs a repeat under the same id, which
Inngest drops. It is on disk with the next append, or a second later.

The invariants: after an I/O error nothing is committed until the log has been copied into the
database, emptied and preallocated again, because a failed sync leaves a hole in it: frames behind
the hole look synced, but recovery after a power cut stops before it. A start puts all of an earlier
log on the disk first. Nothing is written to a file that is known to be damaged.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.model import Batch, ClaimRequest
from inngest_outbox.outbox.sqlite.appends import Append
from inngest_outbox.outbox.sqlite.file.connection import (
    SQL,
    SqliteConnection,
    open_read_only,
    open_writer,
)
from inngest_outbox.outbox.sqlite.file.faults import Corruption, FaultScope, is_io_error, scope_of
from inngest_outbox.outbox.sqlite.file.journalled import Journal, Put
from inngest_outbox.outbox.sqlite.file.log import WriteAheadLog
from inngest_outbox.outbox.sqlite.timings import WriterTimings

T = TypeVar("T")
Waiting = tuple[Any, asyncio.Future[Any]]
"""An item and the future that its submitter waits for."""
Results = tuple[Sequence[Any], Sequence[Any], Sequence[Batch | None]]
"""Of the jobs, the appends and the claims of a group, in their order."""

log = structlog.get_logger(__name__)


def nothing(result: object) -> None:
    """Do nothing: for a job that changes nothing in memory."""


class Job(NamedTuple):
    """One piece of work: `run` in the transaction, `then` on the event loop after the commit.

    `then` gets the result, and whether the submitter still waits for it. A job that is not `synced`
    may be forgotten by a power cut.
    """

    run: Callable[[sqlite3.Connection], Any]
    then: Callable[[Any, bool], None]
    synced: bool = True


class Group:
    """The items of one transaction, in the order in which they are applied.

    `frees_claims` says that claims are due to be freed, whether or not one waits. `put` is the way
    of its appends to the journal, None without one.
    """

    __slots__ = ("appends", "claims", "frees_claims", "jobs", "put")

    def __init__(
        self,
        jobs: Sequence[Waiting] = (),
        appends: Sequence[Waiting] = (),
        claims: Sequence[Waiting] = (),
        *,
        frees_claims: bool = False,
    ) -> None:
        self.jobs, self.appends, self.claims = list(jobs), list(appends), list(claims)
        self.frees_claims = frees_claims
        self.put: Put | None = None

    def __len__(self) -> int:
        return len(self.jobs) + len(self.appends) + len(self.claims)

    @property
    def has_work(self) -> bool:
        """True if it has items other than claims."""
        return bool(self.jobs or self.appends)

    @property
    def is_empty(self) -> bool:
        """True if a transaction would have nothing to do."""
        return not (self.frees_claims or self.jobs or self.appends or self.claims)

    @property
    def is_synced(self) -> bool:
        """True if one of its items waits for a sync, as appends do."""
        return bool(self.appends) or any(job.synced for job, _ in self.jobs)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of work in it."""
        has = (("jobs", self.jobs), ("appends", self.appends))
        kinds = {kind for kind, items in has if items}
        return frozenset(kinds | {"claims"} if self.claims or self.frees_claims else kinds)

    def fail(self, error: Exception) -> None:
        """Raise `error` to every submitter that still waits."""
        ours = isinstance(error, OutboxUnavailableError)
        for _, future in (*self.jobs, *self.appends, *self.claims):
            if not future.done():
                future.set_exception(OutboxUnavailableError(str(error)) if ours else error)

    def cancel(self) -> None:
        """Cancel every item."""
        for _, future in (*self.jobs, *self.appends, *self.claims):
            future.cancel()

    def parts_after(self, error: Exception) -> list[Group]:
        """The smaller groups to commit after `error`; none where that would not help.

        When one kind of work fails, the others are tried without it: on a full disk, settlements
        without appends. When one item fails, the rest of its kind is tried without it.
        """
        scope = scope_of(error)
        if scope is FaultScope.STORE:
            return []
        if len(self.kinds) > 1:
            parts = (
                Group(self.jobs),
                Group(appends=self.appends),
                Group(claims=self.claims, frees_claims=self.frees_claims),
            )
            return [part for part in parts if not part.is_empty]
        if len(self) <= 1 or (scope is FaultScope.KIND and not self.jobs):
            return []
        return [
            *(Group([one]) for one in self.jobs),
            *(Group(appends=[one]) for one in self.appends),
            *(Group(claims=[one]) for one in self.claims),
        ]


class Appends(Protocol):
    """Stores the appends of a transaction."""

    def apply(self, connection: sqlite3.Connection, items: Sequence[Append]) -> Sequence[Any]:
        """The receipts of each item, or the error to raise to its submitter."""
        ...

    def put(self, journal: Journal, results: Sequence[Any]) -> Put | None:
        """Begin to put what `apply` stored last into the journal; None for nothing."""
        ...


class Claims(Protocol):
    """Makes the claims of a transaction."""

    def apply(
        self, connection: sqlite3.Connection, items: Sequence[ClaimRequest]
    ) -> Sequence[Batch | None]:
        """A batch for each request that finds rows."""
        ...


class Preparation(Protocol):
    """The steps before the first commit. Each is repeated until it succeeds, then never again."""

    async def migrate(self) -> None:
        """Check what belongs to the file, and bring it to the schema of this code."""
        ...

    async def run(self, connection: SqliteConnection) -> None:
        """Recover what an earlier process left."""
        ...


class SqliteCommits:
    """Transactions over the writing connection of the outbox at `path`."""

    def __init__(
        self,
        path: Path,
        preparation: Preparation,
        *,
        appends: Appends,
        claims: Claims,
        corruption: Corruption,
        recorder: Recorder,
        timings: WriterTimings,
        ended: Callable[[sqlite3.Connection], None],
        journal: Journal | None = None,
    ) -> None:
        self._path = path
        self._preparation = preparation
        self._appends = appends
        self._claims = claims
        self.corruption = corruption
        self._recorder = recorder
        self._timings = timings
        self._ended = ended
        self._journal = journal
        self.log = WriteAheadLog(path)
        self._loop = asyncio.get_running_loop()  # reading it is a system call each time
        self._stack = contextlib.AsyncExitStack()
        # A connection that only reads. While it is open, closing the writing one copies nothing.
        self._guard = contextlib.AsyncExitStack()
        self._is_guarded = False
        self._suspects_log = False
        self._connection: SqliteConnection | None = None
        self._is_synced_mode: bool | None = None  # what the connection is set to, None: unknown
        self.sync_due_at: float | None = None
        self.wants_checkpoint = False
        self.count = 0

    async def open(self) -> None:
        """Open the connection with a log that can be trusted. Raises OutboxUnavailableError."""
        self.corruption.refuse()
        await self._preparation.migrate()
        if not self._is_guarded:
            guard = await self._guard.enter_async_context(open_read_only(self._path))
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
        await connection.run(self.log.attach)
        if self._suspects_log:
            await connection.run(self.log.renew)
            self._suspects_log = False
        else:
            await connection.run(self._trust)
        await self._preparation.run(connection)
        try:
            # The file itself says from now on that a log belongs to it.
            await connection.run(self.log.checkpoint)
        except OutboxUnavailableError as error:
            if is_io_error(error):
                raise

    def _trust(self, connection: sqlite3.Connection) -> None:
        """Put what an earlier process left in the log on the disk, and make room."""
        if self.log.has_content:
            self.log.make_durable()
        self.log.preallocate(connection)

    async def close(self) -> None:
        """Close the connection. On a disk that hangs, abandon it."""
        self._connection = None
        self.wants_checkpoint = False
        await _close_quietly(self._stack)

    async def stop(self) -> None:
        """Close the connection for good, after a last checkpoint whose errors are seen.

        Where it fails or takes too long, the log stays as it is: SQLite copies a log when the last
        connection closes, unless that one only reads, so the guard is closed last.
        """
        with contextlib.suppress(OutboxUnavailableError, TimeoutError):
            async with asyncio.timeout(self._timings.stall_seconds):
                await self.run(self._end)
            await _close_quietly(self._guard)
        await self.close()
        await _close_quietly(self._guard)
        self.log.detach()

    def _end(self, connection: sqlite3.Connection) -> None:
        """Copy and empty the log, as far as a reader allows.

        The database expects no log only once all of it was copied.
        """
        self._ended(connection)
        connection.execute(SQL["EXPECT_LOG"], {"expected": 0})
        self.log.empty(connection)

    async def probe(self) -> None:
        """Find out whether the outbox can be written, by writing through a new connection.

        Raises OutboxUnavailableError.
        """
        await self.close()
        await self.open()
        await self.run(self._write_something)

    async def checkpoint(self) -> None:
        """Copy the log into the database. Raises OutboxUnavailableError."""
        self.wants_checkpoint = False
        await self.run(self.log.checkpoint)

    async def commit_once(self, group: Group) -> Results:
        """One transaction in one hop to the thread; the results of the group.

        An empty group writes a page too, so that its sync covers earlier commits.
        """
        synced = group.is_synced or group.is_empty
        began = time.perf_counter()
        try:
            if self._connection is None:
                await self.open()
            mode = None
            if synced is not self._is_synced_mode:
                mode = f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}"
            self._is_synced_mode = None  # a failure may come before the statement or after it
            results = await self.run(self._transact, group, mode)
            self._is_synced_mode = synced
        except BaseException:
            if group.put:
                group.put.void()
            raise
        finally:
            self.count += 1
            self._recorder.observe("commit_seconds", time.perf_counter() - began)
        if synced:
            self.sync_due_at = None
        elif self.sync_due_at is None:
            self.sync_due_at = self._loop.time() + self._timings.sync_seconds
        return results

    def run(self, work: Callable[..., T], *arguments: Any) -> Awaitable[T]:
        """`work(connection, …)` between two transactions. Raises OutboxUnavailableError."""
        self.corruption.refuse()
        if self._connection is None:
            raise OutboxUnavailableError
        return self._noting_faults(self._connection.run(work, *arguments))

    async def _noting_faults(self, hop: Awaitable[T]) -> T:
        """After an I/O error the log is not trusted and the connection is closed."""
        try:
            return await hop
        except OutboxUnavailableError as error:
            self.corruption.note(error)
            if is_io_error(error):
                self._suspects_log = True
                self._recorder.count("io_errors")
                log.error("disk_failed", reason=str(error))  # noqa: TRY400  (no fault of the code)
                await self.close()
            raise

    def _transact(self, connection: sqlite3.Connection, group: Group, mode: str | None) -> Results:
        """Apply the group and commit, after the statement `mode`.

        All or nothing: a failure leaves no trace of the transaction.
        """
        if mode:
            connection.execute(mode)
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = self._apply(connection, group)
            if self.log.is_unmarked or group.is_empty:
                connection.execute(SQL["MARK_LOG"])
            if self._journal and group.appends:
                group.put = self._appends.put(self._journal, results[1])
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.log.is_unmarked = False
        self.wants_checkpoint = self.log.look()
        return results

    def _apply(self, connection: sqlite3.Connection, group: Group) -> Results:
        jobs = [job.run(connection) for job, _ in group.jobs]
        appends: Sequence[Any] = ()
        claims: Sequence[Batch | None] = ()
        if group.appends:
            appends = self._appends.apply(connection, [item for item, _ in group.appends])
        if group.claims or group.frees_claims:
            claims = self._claims.apply(connection, [item for item, _ in group.claims])
        return jobs, appends, claims

    def _write_something(self, connection: sqlite3.Connection) -> None:
        """Find out whether the file can be written."""
        self.log.checkpoint(connection)  # makes room in a log that filled the disk
        connection.execute(SQL["MARK_LOG"])


def _begin_guard(connection: sqlite3.Connection) -> None:
    """Make the first read, which takes the lock by which SQLite knows of this connection."""
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()


async def _close_quietly(stack: contextlib.AsyncExitStack) -> None:
    with contextlib.suppress(OutboxUnavailableError):
        await stack.aclose()
