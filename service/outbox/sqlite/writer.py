"""Group commit: all work that waits at one moment shares one transaction and one sync.

Owns the queue of items and hands out their results; `commit` runs the transactions, `watchdog`
knows whether the outbox can be written. The invariant: a result is handed out only after the commit
that holds it, and every submitted item gets a result or an error, whatever happens to the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from service.errors import OutboxUnavailableError
from service.observe.recorder import Recorder
from service.outbox.sqlite.commit import SqliteCommits, retry_smaller
from service.outbox.sqlite.damage import Damage
from service.outbox.sqlite.timings import WriterTimings
from service.outbox.sqlite.watchdog import Watchdog
from service.outbox.sqlite.work import BlockingKind, Group, Waiting, WorkKind, fail_all
from service.supervisor import end

T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger(__name__)


class SqliteWriter:
    """The queue before the writing connection.

    `kinds` are applied in their order inside a transaction, then `blocking`, whose items start no
    transaction of their own unless they are new or due.
    """

    def __init__(
        self,
        commits: SqliteCommits,
        kinds: Sequence[WorkKind[Any, Any]],
        blocking: BlockingKind[Any, Any],
        *,
        recorder: Recorder,
        timings: WriterTimings,
        damage: Damage,
    ) -> None:
        self._commits = commits
        self._blocking = blocking
        self._timings = timings
        self._waiting: Group = {kind: Waiting() for kind in (*kinds, blocking)}
        self._watchdog = Watchdog(timings, recorder, damage, self._fail_waiting)
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._try_blocking = False
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def watchdog(self) -> Watchdog:
        """Whether the outbox can be written."""
        return self._watchdog

    @property
    def alive(self) -> bool:
        """Whether the writer's task runs."""
        return self._task is not None and not self._task.done()

    def start(self, failure: OutboxUnavailableError | None) -> None:
        """Begin; with a failure to open the file, which is tried until it can be."""
        if failure:
            self._watchdog.probed(failure)
        self._task = asyncio.create_task(self._run(), name="outbox-writer")

    async def stop(self) -> None:
        """Write what waits, then close. Blocking items are cancelled; a disk that hangs is left."""
        self._stopping = True
        self._wake.set()
        if self._task:
            await asyncio.wait([self._task], timeout=self._timings.stall_seconds)
            left = [*self._watchdog.group.values(), *self._waiting.values()]
            await end(self._task)
            for future in (future for waiting in left for future in waiting.futures):
                future.cancel()
        await self._commits.stop()

    def submit(self, kind: WorkKind[T, R], item: T) -> asyncio.Future[R]:
        """Queue an item; the future has its result after the commit.

        Cancelling the future does not take the item back.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        waiting = self._waiting[kind]
        waiting.items.append(item)
        waiting.futures.append(future)
        self._try_blocking |= kind is self._blocking
        self._wake.set()
        return future

    def wake(self) -> None:
        """Try the blocking items again."""
        self._try_blocking = True
        self._wake.set()

    async def between_commits(self, work: Callable[..., T]) -> T:
        """Run `work` on the writing connection between two transactions.

        Raises OutboxUnavailableError; then the outbox is probed, as after a commit that failed.
        """
        try:
            return await self._commits.run(work)
        except OutboxUnavailableError as error:
            self._watchdog.failed(error, {})
            self._wake.set()
            raise

    async def _run(self) -> None:
        while not self._stopping or self._has_work():
            await self._wait_for_work()
            try:
                await self._work()
            except Exception as error:
                log.exception("writer_failed")
                self._watchdog.probed(
                    OutboxUnavailableError(f"A fault of ours: {type(error).__name__}")
                )

    async def _work(self) -> None:
        if self._watchdog.wants_probe:
            await self._probe()
        await self._gather()
        if group := self._take():
            await self._commit(group)
        elif self._is_late(self._commits.sync_due_at):
            await self._commit({})

    async def _wait_for_work(self) -> None:
        """Until something is submitted, due, to be synced or to be probed; not at the stop."""
        if not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience()):
                    await self._wake.wait()
        self._wake.clear()

    def _patience(self) -> float | None:
        if self._watchdog.failure:
            return self._timings.probe_seconds
        due = self._blocking_due()
        sync_at = self._commits.sync_due_at
        waits = [] if due is None else [due]
        if sync_at is not None:
            waits.append(max(0.0, sync_at - self._loop.time()))
        return min(waits, default=None)

    def _blocking_due(self) -> float | None:
        waiting = bool(self._waiting[self._blocking].items)
        return self._blocking.due_in_seconds(waiting=waiting)

    def _is_late(self, at: float | None) -> bool:
        return at is not None and self._loop.time() >= at

    async def _gather(self) -> None:
        """Let the requests that have already arrived join the group."""
        seen = -1
        for _ in range(self._timings.gather_turns):
            now = sum(len(waiting.items) for waiting in self._waiting.values())
            if now == seen:
                return
            seen = now
            await asyncio.sleep(0)

    def _has_work(self) -> bool:
        return any(w.items for kind, w in self._waiting.items() if kind is not self._blocking)

    def _take(self) -> Group:
        """All that waits, if anything of it wants a transaction."""
        due = self._blocking_due()
        is_due = due is not None and due <= 0 and not self._stopping
        wanted, self._try_blocking = self._try_blocking or is_due, False
        if not wanted and not self._has_work():
            return {}
        self._waiting[self._blocking].forget_cancelled()
        group = {
            kind: waiting
            for kind, waiting in self._waiting.items()
            if waiting.items or (is_due and kind is self._blocking)
        }
        self._waiting |= {kind: Waiting() for kind in group}
        return group

    async def _commit(self, group: Group) -> None:
        """Commit the group, or else the parts of it that can be committed."""
        groups = [group]
        while groups:
            part = groups.pop(0)
            try:
                with self._watchdog.watching(part):
                    results = await self._commits.commit_once(part)
            except Exception as error:  # noqa: BLE001  (every item gets its answer)
                smaller = retry_smaller(part, error)
                if not smaller:
                    self._refuse(part, groups, error)
                groups = [*smaller, *groups]
            else:
                self._watchdog.passed(part)
                self._resolve(part, results)

    def _refuse(self, part: Group, others: list[Group], error: Exception) -> None:
        """Raise `error` to those who wait for `part`, and to all if nothing can be written."""
        fail_all(part, error)
        if self._watchdog.failed(error, part):
            while others:
                fail_all(others.pop(), error)
            self._fail_waiting(error)

    def _fail_waiting(self, error: Exception) -> None:
        """Nothing can be written: who came during the attempt does not wait for another one."""
        waiting, self._waiting = self._waiting, {kind: Waiting() for kind in self._waiting}
        fail_all(waiting, error)

    def _resolve(self, group: Group, results: Sequence[Sequence[Any]]) -> None:
        for (kind, waiting), outcomes in zip(group.items(), results, strict=True):
            still_wanted = [not future.done() for future in waiting.futures]
            for item, future, outcome in zip(waiting.items, waiting.futures, outcomes, strict=True):
                if not future.done():
                    self._answer(kind, item, future, outcome)
            kind.committed(waiting.items, outcomes, still_wanted)

    def _answer(
        self, kind: WorkKind[Any, Any], item: Any, future: asyncio.Future[Any], outcome: Any
    ) -> None:
        if outcome is None:
            again = self._waiting[kind]
            again.items.append(item)
            again.futures.append(future)
        elif isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    async def _probe(self) -> None:
        """Find out whether the cause of a failure is gone, by really writing."""
        try:
            with self._watchdog.watching({}):
                await self._commits.probe()
        except OutboxUnavailableError as error:
            self._watchdog.probed(error)
        else:
            self._watchdog.probed(None)
            self.wake()
