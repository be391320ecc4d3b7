"""Group commit: all work that waits at one moment shares one transaction and one sync.

`work_queue` holds the waiting items, `commit` runs the transactions, `watchdog` knows whether the
outbox can be written. The invariant: a result is handed out only after its commit, and every
submitted item gets a result or an error, whatever happens to the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from service.errors import OutboxUnavailableError
from service.observe.recorder import Recorder
from service.outbox.sqlite.commit import SqliteCommits, retry_smaller
from service.outbox.sqlite.commit_delay import CommitDelay
from service.outbox.sqlite.damage import Damage
from service.outbox.sqlite.timings import WriterTimings
from service.outbox.sqlite.watchdog import Watchdog
from service.outbox.sqlite.work import BlockingKind, Group, WorkKind, count_synced, fail_all
from service.outbox.sqlite.work_queue import WorkQueue, cancel_all
from service.supervisor import end

T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger(__name__)


class SqliteWriter:
    """The task that owns the writing connection.

    `kinds` are applied in their order inside a transaction, then `blocking`, whose items start no
    transaction of their own unless they are new or due. `watchdog` knows whether the outbox can be
    written.
    """

    def __init__(
        self,
        commits: SqliteCommits,
        kinds: Sequence[WorkKind[Any, Any]],
        blocking: BlockingKind[Any, Any],
        recorder: Recorder,
        timings: WriterTimings,
        damage: Damage,
    ) -> None:
        self._commits = commits
        self._timings = timings
        self._queue = queue = WorkQueue(kinds, blocking)
        self.watchdog = Watchdog(timings, recorder, damage, queue.fail)
        self._delay = CommitDelay(timings.delay, timings.clock)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def alive(self) -> bool:
        """Whether the writer's task runs."""
        return self._task is not None and not self._task.done()

    def start(self, failure: OutboxUnavailableError | None) -> None:
        """Start the task. After a `failure` to open the file it is tried until it opens."""
        if failure:
            self.watchdog.probed(failure)
        self._task = asyncio.create_task(self._run(), name="outbox-writer")

    async def stop(self) -> None:
        """Write all waiting items, cancel blocking ones, close. Abandons a disk that hangs."""
        self._stopping = True
        self._delay.end()
        self._queue.arrived.set()
        if self._task:
            await asyncio.wait([self._task], timeout=self._timings.stall_seconds)
            under_way = self.watchdog.group
            await end(self._task)
            cancel_all(under_way)
            self._queue.cancel()
        await self._commits.stop()

    def submit(self, kind: WorkKind[T, R], item: T) -> asyncio.Future[R]:
        """Queue an item; the future has its result after the commit.

        Cancelling the future does not take the item back.
        """
        return self._queue.submit(kind, item)

    def wake(self) -> None:
        """Try the blocking items again."""
        self._queue.wake()

    async def between_commits(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work(connection, …)` on the writing connection between two transactions.

        Raises OutboxUnavailableError; then the outbox is probed, as after a commit that failed.
        """
        try:
            return await self._commits.run(work, *arguments)
        except OutboxUnavailableError as error:
            self.watchdog.failed(error, {})
            self._queue.arrived.set()
            raise

    async def _run(self) -> None:
        while not self._stopping or self._queue.has_work:
            await self._wait_for_work()
            try:
                await self._work()
            except Exception as error:
                log.exception("writer_failed")
                self.watchdog.probed(
                    OutboxUnavailableError(f"A fault of the service: {type(error).__name__}")
                )

    async def _work(self) -> None:
        if self.watchdog.wants_probe:
            await self._probe()
        await self._queue.gather(self._timings.gather_turns)
        await self._queue.wait_for_expected(self._delay)
        if group := self._queue.take(with_due=not self._stopping):
            await self._commit(group)
        elif (at := self._commits.sync_due_at) is not None and self._loop.time() >= at:
            await self._commit({})

    async def _wait_for_work(self) -> None:
        """Wait for a submission, a due item, a sync, a probe or the stop."""
        if not self._stopping:
            await self._queue.wait(self._patience())
        self._queue.arrived.clear()

    def _patience(self) -> float | None:
        if self.watchdog.failure:
            return self._timings.probe_seconds
        due, sync_at = self._queue.due_in_seconds(), self._commits.sync_due_at
        sync = None if sync_at is None else sync_at - self._loop.time()
        return min((one for one in (due, sync) if one is not None), default=None)

    async def _commit(self, group: Group) -> None:
        """Commit the group, or the parts of it that can be committed."""
        groups, faults = [group], list[Exception]()
        while groups:
            part = groups.pop(0)
            self._delay.begins()
            try:
                with self.watchdog.watching(part):
                    results = await self._commits.commit_once(part)
            except Exception as error:  # noqa: BLE001  (every item gets its answer)
                smaller = retry_smaller(part, error)
                if not smaller:
                    self._refuse(part, groups, error)
                groups = [*smaller, *groups]
            else:
                self.watchdog.passed(part)
                try:
                    self._queue.answer(part, results)
                except Exception as fault:  # noqa: BLE001  (raised after the other parts)
                    faults.append(fault)
                self._delay.committed(count_synced(part), waiting=self._queue.synced)
        if faults:
            raise faults[0]

    def _refuse(self, part: Group, others: list[Group], error: Exception) -> None:
        """Raise `error` to the submitters of `part`, and to all if nothing can be written."""
        fail_all(part, error)
        if self.watchdog.failed(error, part):
            while others:
                fail_all(others.pop(), error)
            # Items that came during the attempt do not wait for another one.
            self._queue.fail(error)

    async def _probe(self) -> None:
        """Find out by a real write whether the cause of a failure is gone."""
        try:
            with self.watchdog.watching({}):
                await self._commits.probe()
        except OutboxUnavailableError as error:
            self.watchdog.probed(error)
        else:
            self.watchdog.probed(None)
            self.wake()
