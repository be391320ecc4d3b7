"""Group commit: all work that waits at one moment shares one transaction and one sync.

`SqliteWriter` owns the writing connection. Callers submit work of a kind; a kind applies all its
waiting work with few statements. The invariant: a result is handed out only after the commit that
holds it, and every submitted work gets a result or an error, whatever happens to the connection.

An append is synced before its result is handed out. A claim or a settlement alone is not: a power
cut that forgets one costs a repeat under the same id, which Inngest drops. It is on disk with the
next append, or a second later.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog

from service.errors import OutboxUnavailableError
from service.observe.recorder import Recorder
from service.outbox.sqlite.connection import Reach, SqliteConnection, open_writer, reach_of
from service.outbox.sqlite.transaction import transact, write_something
from service.outbox.sqlite.work import Kind, Waiting, fail
from service.supervisor import end

W = TypeVar("W")
R = TypeVar("R")
T = TypeVar("T")

STUCK_SECONDS = 3.0
PROBE_SECONDS = 0.5
SYNC_SECONDS = 1.0
_GATHER_TURNS = 8

log = structlog.get_logger(__name__)


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
        self._waiting: dict[Kind[Any, Any], Waiting[Any]] = {kind: Waiting() for kind in kinds}
        self._standing = frozenset(standing)
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()  # asking for it is a system call each time
        self._poked = False
        self._stack = contextlib.AsyncExitStack()
        self._connection: SqliteConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: OutboxUnavailableError | None = None
        self._failed_kind: Kind[Any, Any] | None = None
        self._probe_at = 0.0
        self._stopping = False
        self._syncs = True  # what the connection is set to
        self._sync_at: float | None = None
        self._in_hop: dict[Kind[Any, Any], Waiting[Any]] = {}
        self.groups = 0

    @property
    def failure(self) -> OutboxUnavailableError | None:
        """Why the outbox can't be written, None while it can."""
        return self._failure

    async def start(self) -> None:
        """Open the connection and begin. Raises OutboxUnavailableError."""
        await self._connect()
        self._task = asyncio.create_task(self._run(), name="outbox-writer")

    async def stop(self) -> None:
        """Write what waits, then close. Standing work is cancelled; a disk that hangs is left."""
        self._stopping = True
        self._wake.set()
        if self._task:
            await asyncio.wait([self._task], timeout=STUCK_SECONDS)
            left = [*self._in_hop.values(), *self._waiting.values()]
            await end(self._task)
            for future in (future for waiting in left for future in waiting.futures):
                future.cancel()
        await self._disconnect()

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
        while not self._stopping or self._has_work():
            await self._woken()
            try:
                await self._work()
            except Exception as error:
                log.exception("writer_failed")
                self._failure = OutboxUnavailableError(f"A fault of ours: {type(error).__name__}")

    async def _work(self) -> None:
        if self._failure and self._loop.time() >= self._probe_at:
            with self._watched({}):
                await self._probe()
        await self._gather()
        if group := self._take():
            await self._commit(group)
        elif self._sync_at is not None and self._loop.time() >= self._sync_at:
            await self._commit({})

    async def _woken(self) -> None:
        """Wait for work; not for long while failing or not synced, and not at all at the end."""
        if not self._stopping:
            unsynced = SYNC_SECONDS if self._sync_at is not None else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS if self._failure else unsynced):
                    await self._wake.wait()
        self._wake.clear()

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
        return any(w.works for kind, w in self._waiting.items() if kind not in self._standing)

    def _take(self) -> dict[Kind[Any, Any], Waiting[Any]]:
        poked, self._poked = self._poked, False
        if not poked and not self._has_work():
            return {}
        for kind in self._standing:
            self._waiting[kind].forget_cancelled()
        group = {kind: waiting for kind, waiting in self._waiting.items() if waiting.works}
        self._waiting |= {kind: Waiting() for kind in group}
        return group

    async def _commit(self, group: dict[Kind[Any, Any], Waiting[Any]]) -> None:
        try:
            results = await self._hop(group)
        except Exception as error:  # noqa: BLE001  (whatever it is, every work gets its answer)
            await self._divide(group, error)
            return
        if self._failed_kind is None or self._failed_kind in group:
            self._failure = self._failed_kind = None
        for (kind, waiting), outcome in zip(group.items(), results, strict=True):
            self._hand_out(kind, waiting, outcome)

    async def _divide(self, group: dict[Kind[Any, Any], Waiting[Any]], error: Exception) -> None:
        """Commit apart what the fault leaves whole: completions beside a full disk, say."""
        reach = reach_of(error)
        if reach is not Reach.EVERYTHING and len(group) > 1:
            for kind, waiting in group.items():
                await self._commit({kind: waiting})
        elif reach is Reach.WORK and any(len(waiting.works) > 1 for waiting in group.values()):
            [(kind, waiting)] = group.items()
            for work, future in zip(waiting.works, waiting.futures, strict=True):
                await self._commit({kind: Waiting([work], [future])})
        else:
            if isinstance(error, OutboxUnavailableError) and reach is not Reach.WORK:
                self._failure = error
                self._failed_kind = next(iter(group), None) if reach is Reach.KIND else None
            fail(group, error)
            if reach is Reach.EVERYTHING:
                self._fail_waiting(error)

    async def _hop(self, group: dict[Kind[Any, Any], Waiting[Any]]) -> Sequence[Sequence[Any]]:
        """One transaction in one hop to the thread."""
        works = [(kind, waiting.works) for kind, waiting in group.items()]
        synced = not group or any(kind.synced for kind in group)
        began = time.perf_counter()
        try:
            with self._watched(group):
                if self._connection is None:
                    await self._connect()
                assert self._connection is not None  # noqa: S101
                results = await self._connection.run(transact, works, self._mode(synced=synced))
                if synced:
                    self._sync_at = None
                elif self._sync_at is None:
                    self._sync_at = self._loop.time() + SYNC_SECONDS
                return results
        finally:
            self.groups += 1
            self._recorder.observe("commit_seconds", time.perf_counter() - began)

    def _mode(self, *, synced: bool) -> str | None:
        """What sets the connection to sync its commits or not, None when it is set so."""
        if synced is self._syncs:
            return None
        self._syncs = synced
        return f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}"

    @contextlib.contextmanager
    def _watched(self, group: dict[Kind[Any, Any], Waiting[Any]]) -> Iterator[None]:
        """While inside, nobody waits for the disk longer than `STUCK_SECONDS`."""
        self._in_hop = group
        self._watch = self._loop.call_later(STUCK_SECONDS, self._stuck)
        try:
            yield
        finally:
            self._watch.cancel()
            self._in_hop = {}

    def _stuck(self) -> None:
        """The disk does not answer: who waits is told so, whatever becomes of the hop."""
        self._watch = self._loop.call_later(STUCK_SECONDS, self._stuck)
        self._failure = OutboxUnavailableError("The outbox's disk does not answer.")
        for waiting in self._in_hop.values():
            waiting.fail(self._failure)
        self._fail_waiting(self._failure)

    def _fail_waiting(self, error: Exception) -> None:
        """Nothing can be written: who came during the attempt does not wait for another one."""
        waiting, self._waiting = self._waiting, {kind: Waiting() for kind in self._waiting}
        fail(waiting, error)

    def _hand_out(
        self, kind: Kind[Any, Any], waiting: Waiting[Any], results: Sequence[Any]
    ) -> None:
        taken = []
        for work, future, result in zip(waiting.works, waiting.futures, results, strict=True):
            taken.append(not future.done())
            if future.done():
                continue
            if result is None:
                retry = self._waiting[kind]
                retry.works.append(work)
                retry.futures.append(future)
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
            await self._connection.run(write_something)  # type: ignore[union-attr]
            self._failure = self._failed_kind = None
            self.poke()
        except OutboxUnavailableError as error:
            self._failure = error
        finally:
            self._probe_at = self._loop.time() + PROBE_SECONDS

    async def _connect(self) -> None:
        self._connection = await self._stack.enter_async_context(open_writer(self._path))
        self._syncs = True

    async def _disconnect(self) -> None:
        self._connection = None
        with contextlib.suppress(OutboxUnavailableError):
            await self._stack.aclose()
