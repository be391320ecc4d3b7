"""Group commit: all work that waits at one moment shares one transaction and one sync.

`SqliteWriter` owns the writing connection. Callers submit work of a kind; a kind applies all its
waiting work with few statements. The invariant: a result is handed out only after the commit that
holds it, and every submitted work gets a result or an error, whatever happens to the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from service.errors import OutboxUnavailableError
from service.observe.recorder import Recorder
from service.outbox.sqlite_connection import SqliteConnection, open_writer

W = TypeVar("W")
W_contra = TypeVar("W_contra", contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

STUCK_SECONDS = 3.0
PROBE_SECONDS = 0.5
_GATHER_TURNS = 8


class Kind(Protocol[W_contra, R_co]):
    """A kind of work. `apply` runs on the database thread, the others on the event loop."""

    def apply(
        self, connection: sqlite3.Connection, works: Sequence[W_contra]
    ) -> Sequence[R_co | None]:
        """Do the works inside the open transaction; a result each, in order.

        A result that is an exception is raised to that work's submitter. None leaves the work
        waiting for a later group (a standing work).
        """
        ...

    def committed(
        self, works: Sequence[W_contra], results: Sequence[Any], taken: Sequence[bool]
    ) -> None:
        """After the commit; `taken` says whether the submitter still waits."""
        ...

    def failed(self, works: Sequence[W_contra]) -> None:
        """After a rollback: none of the works has left a trace."""
        ...


class _Waiting(Generic[W]):
    __slots__ = ("futures", "works")

    def __init__(self) -> None:
        self.works: list[W] = []
        self.futures: list[asyncio.Future[Any]] = []


class SqliteWriter:
    """The writing connection of the outbox at `path`, and the queue before it.

    `kinds` are applied in their order inside a transaction; those in `standing` start no
    transaction of their own unless poked.
    """

    def __init__(
        self,
        path: Path,
        kinds: Sequence[Kind[Any, Any]],
        standing: Sequence[Kind[Any, Any]],
        recorder: Recorder,
    ) -> None:
        self._path = path
        self._recorder = recorder
        self._waiting: dict[Kind[Any, Any], _Waiting[Any]] = {kind: _Waiting() for kind in kinds}
        self._standing = frozenset(map(id, standing))
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()  # asking for it is a system call each time
        self._poked = False
        self._stack = contextlib.AsyncExitStack()
        self._connection: SqliteConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: OutboxUnavailableError | None = None
        self._in_hop: dict[Kind[Any, Any], _Waiting[Any]] = {}
        self.groups = 0
        self.largest_group = 0
        self.commit_seconds = 0.0

    @property
    def failure(self) -> OutboxUnavailableError | None:
        """Why the outbox can't be written, None while it can."""
        return self._failure

    async def start(self) -> None:
        """Open the connection and begin. Raises OutboxUnavailableError."""
        await self._connect()
        self._task = asyncio.create_task(self._run(), name="outbox-writer")

    async def stop(self) -> None:
        """Write what waits, then close. Standing work is cancelled."""
        if self._task:
            while self._has_work() and not self._failure and not self._task.done():
                self._wake.set()
                await asyncio.sleep(0.001)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for waiting in self._waiting.values():
            for future in waiting.futures:
                future.cancel()
        with contextlib.suppress(OutboxUnavailableError):
            await self._stack.aclose()

    @property
    def alive(self) -> bool:
        """Whether the writer's task runs."""
        return self._task is not None and not self._task.done()

    def submit(self, kind: Kind[W, R], work: W) -> asyncio.Future[R]:
        """Queue work; the future has its result after the commit.

        Cancelling the future does not take the work back.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        waiting = self._waiting[kind]
        waiting.works.append(work)
        waiting.futures.append(future)
        self._wake.set()
        return future

    def refuse_if_failing(self) -> None:
        """Raise OutboxUnavailableError at once while the outbox can't be written."""
        if self._failure:
            raise OutboxUnavailableError(str(self._failure))

    async def outside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the writing connection between two groups, outside a transaction."""
        if self._connection is None:
            raise OutboxUnavailableError
        return await self._connection.run(work)

    def poke(self) -> None:
        """Try the standing work again."""
        self._poked = True
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(PROBE_SECONDS if self._failure else None):
                    await self._wake.wait()
            except TimeoutError:
                await self._probe()
                continue
            self._wake.clear()
            await self._gather()
            group = self._take()
            if group:
                await self._commit(group)

    async def _gather(self) -> None:
        """Let the requests that have already arrived join the group."""
        seen = -1
        for _ in range(_GATHER_TURNS):
            now = sum(len(waiting.works) for waiting in self._waiting.values())
            if now == seen:
                return
            seen = now
            await asyncio.sleep(0)

    def _has_work(self) -> bool:
        return any(w.works for kind, w in self._waiting.items() if id(kind) not in self._standing)

    def _take(self) -> dict[Kind[Any, Any], _Waiting[Any]]:
        poked, self._poked = self._poked, False
        if not poked and not self._has_work():
            return {}
        group = {kind: waiting for kind, waiting in self._waiting.items() if waiting.works}
        for kind in group:
            self._waiting[kind] = _Waiting()
        return group

    async def _commit(self, group: dict[Kind[Any, Any], _Waiting[Any]]) -> None:
        try:
            results = await self._hop(group)
        except OutboxUnavailableError as error:
            if len(group) == 1:
                [(kind, waiting)] = group.items()
                self._fail(kind, waiting, error)
                return
            # One kind must not take the others down with it: completions commit beside a full disk.
            for kind, waiting in group.items():
                await self._commit({kind: waiting})
            return
        self._failure = None
        for (kind, waiting), outcome in zip(group.items(), results, strict=True):
            self._hand_out(kind, waiting, outcome)

    async def _hop(self, group: dict[Kind[Any, Any], _Waiting[Any]]) -> Sequence[Sequence[Any]]:
        """One transaction in one hop to the thread, watched: a stuck disk fails who waits."""
        works = [(kind, waiting.works) for kind, waiting in group.items()]
        if self._connection is None:
            await self._connect()
        assert self._connection is not None  # noqa: S101
        began = time.perf_counter()
        self._in_hop = group
        watch = self._loop.call_later(STUCK_SECONDS, self._stuck)
        try:
            return await self._connection.run(_transact, works)
        finally:
            watch.cancel()
            self._in_hop = {}
            self.groups += 1
            self.largest_group = max(self.largest_group, sum(len(w) for _, w in works))
            self.commit_seconds = time.perf_counter() - began
            self._recorder.observe("commit_seconds", self.commit_seconds)

    def _stuck(self) -> None:
        """The disk does not answer: nobody waits for it longer than this."""
        self._failure = OutboxUnavailableError("The outbox's disk does not answer.")
        for waiting in self._in_hop.values():
            _fail_futures(waiting, self._failure)
        for kind, waiting in self._waiting.items():
            self._waiting[kind] = _Waiting()
            self._fail(kind, waiting, self._failure)

    def _fail(
        self, kind: Kind[Any, Any], waiting: _Waiting[Any], error: OutboxUnavailableError
    ) -> None:
        self._failure = error
        _fail_futures(waiting, error)
        kind.failed(waiting.works)

    def _hand_out(
        self, kind: Kind[Any, Any], waiting: _Waiting[Any], results: Sequence[Any]
    ) -> None:
        taken = []
        for work, future, result in zip(waiting.works, waiting.futures, results, strict=True):
            taken.append(not future.done())
            if future.done():
                continue
            if result is None:
                again = self._waiting[kind]
                again.works.append(work)
                again.futures.append(future)
            elif isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        kind.committed(waiting.works, results, taken)

    async def _probe(self) -> None:
        """Find out whether the cause of a failure is gone, by really writing."""
        try:
            await self._disconnect()
            await self._connect()
            await self._connection.run(_write_something)  # type: ignore[union-attr]
        except OutboxUnavailableError as error:
            self._failure = error
            return
        self._failure = None
        self.poke()

    async def _connect(self) -> None:
        self._connection = await self._stack.enter_async_context(open_writer(self._path))

    async def _disconnect(self) -> None:
        self._connection = None
        with contextlib.suppress(OutboxUnavailableError):
            await self._stack.aclose()


def _fail_futures(waiting: _Waiting[Any], error: OutboxUnavailableError) -> None:
    for future in waiting.futures:
        if not future.done():
            future.set_exception(OutboxUnavailableError(str(error)))


def _transact(
    connection: sqlite3.Connection, works: Sequence[tuple[Kind[Any, Any], Sequence[Any]]]
) -> list[Sequence[Any]]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [kind.apply(connection, waiting) for kind, waiting in works]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def _write_something(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE lane SET since = since WHERE one = 1")
