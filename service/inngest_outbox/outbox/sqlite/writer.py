"""Group commit: all work that waits at one moment shares one transaction and one sync.

Work is an append, a claim, or a job: one function inside the transaction, such as a settlement or
an operator's change. `commit` runs the transactions, `health` knows whether the outbox can be
written. The invariants: a result is handed out only after its commit; every submitted item gets one
result or one error, whatever happens to the disk; an item is in the queue or in one group that was
taken, never in both.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.model import Batch, ClaimRequest
from inngest_outbox.outbox.sqlite.appends import Append, SqliteAppends
from inngest_outbox.outbox.sqlite.claims import SqliteClaims
from inngest_outbox.outbox.sqlite.commit import Group, Job, SqliteCommits, Waiting, nothing
from inngest_outbox.outbox.sqlite.file.journalled import Journal
from inngest_outbox.outbox.sqlite.health import Watchdog
from inngest_outbox.outbox.sqlite.timings import CommitDelay, WriterTimings
from inngest_outbox.supervisor import end

T = TypeVar("T")

log = structlog.get_logger(__name__)


class SqliteWriter:
    """The task that owns the writing connection. Claims wait in it until rows are due."""

    def __init__(
        self,
        commits: SqliteCommits,
        appends: SqliteAppends,
        claims: SqliteClaims,
        recorder: Recorder,
        timings: WriterTimings,
        journal: Journal | None = None,
    ) -> None:
        self._journal = journal
        self._puts: set[asyncio.Future[None]] = set()
        self._commits = commits
        self._appends = appends
        self._claims = claims
        self._timings = timings
        self._waiting = Group()
        self._try_claims = False
        self.watchdog = Watchdog(timings, recorder, commits.corruption, self._fail_waiting)
        self._delay = CommitDelay(timings.delay, time.monotonic)
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def alive(self) -> bool:
        """True if the writer's task runs."""
        return self._task is not None and not self._task.done()

    def start(self, failure: OutboxUnavailableError | None) -> None:
        """Start the task. After a `failure` to open the file it is tried until it opens."""
        if failure:
            self.watchdog.probed(failure)
        self._task = asyncio.create_task(self._run(), name="outbox-writer")

    async def stop(self) -> None:
        """Write all waiting items, cancel claims, close. Abandons a disk that hangs."""
        self._stopping = True
        self._arrived.set()
        if self._task:
            await asyncio.wait([self._task], timeout=self._timings.stall_seconds)
            await end(self._task)
            self._waiting.cancel()
        if self._puts:
            await asyncio.wait(self._puts, timeout=self._timings.stall_seconds)
        await self._commits.stop()

    def append(self, item: Append) -> asyncio.Future[Any]:
        """Queue events; the future has their receipts after the commit.

        Cancelling the future does not take them back.
        """
        return self._queue(self._waiting.appends, item)

    def claim(self, item: ClaimRequest) -> asyncio.Future[Batch]:
        """Queue a claim, which waits until rows are due; the future has the batch."""
        self._try_claims = True
        return self._queue(self._waiting.claims, item)

    def submit(self, job: Job) -> asyncio.Future[Any]:
        """Queue a job; the future has its result after the commit."""
        return self._queue(self._waiting.jobs, job)

    async def run(
        self,
        run: Callable[[sqlite3.Connection], T],
        then: Callable[[T], None] = nothing,
    ) -> T:
        """The result of `run`, committed and synced; `then` gets it after the commit.

        `then` is called even when nobody waits for the result any more. Raises
        OutboxUnavailableError.
        """
        result: T = await self.submit(Job(run, lambda done, _: then(done)))
        return result

    def wake(self) -> None:
        """Try the waiting claims again."""
        self._try_claims = True
        self._arrived.set()

    async def between_commits(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work(connection, …)` on the writing connection between two transactions.

        Raises OutboxUnavailableError; then the outbox is probed, as after a commit that failed.
        """
        try:
            return await self._commits.run(work, *arguments)
        except OutboxUnavailableError as error:
            self.watchdog.failed(error)
            self._arrived.set()
            raise

    def _queue(self, waiting: list[Waiting], item: object) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        waiting.append((item, future))
        self._arrived.set()
        return future

    async def _run(self) -> None:
        while not self._stopping or self._waiting.has_work:
            if not self._stopping:
                await self._wait(self._patience())
            self._arrived.clear()
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
        await self._gather()
        if (group := self._take()) is not None:
            await self._commit(group)
        elif (at := self._commits.sync_due_at) is not None and self._loop.time() >= at:
            await self._commit(Group())
        if self._commits.wants_checkpoint:
            await self._checkpoint()

    def _patience(self) -> float | None:
        """Seconds until a due claim, a sync or a probe; None: not before something arrives."""
        if self.watchdog.failure:
            return self._timings.probe_seconds
        waits = [self._claims.due_in_seconds(waiting=bool(self._waiting.claims))]
        if (sync_at := self._commits.sync_due_at) is not None:
            waits.append(sync_at - self._loop.time())
        if self._journal and self._waiting.appends:
            waits.append(self._put_in_seconds())
        return min([one for one in waits if one is not None], default=None)

    def _put_in_seconds(self) -> float:
        """Seconds until the waiting appends may be put; refuses them while the bucket is away."""
        if self._journal is None or self._stopping:
            return 0.0
        try:
            return self._journal.wait_seconds()
        except OutboxUnavailableError as error:
            refused = Group(appends=self._waiting.appends)
            self._waiting.appends = []
            self._fail(refused, error)
            return 0.0

    async def _wait(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()

    async def _gather(self) -> None:
        """Let requests join that have arrived, then appends that are on their way."""
        seen = -1
        for _ in range(self._timings.gather_turns):
            before, seen = seen, len(self._waiting)
            if before == seen:
                break
            await asyncio.sleep(0)
        while seconds := self._delay.seconds(len(self._waiting.appends)):
            self._arrived.clear()
            await self._wait(seconds)

    def _take(self) -> Group | None:
        """All waiting items, if one of them wants a transaction: claims only if new or due."""
        due = self._claims.due_in_seconds(waiting=bool(self._waiting.claims))
        is_due = due is not None and due <= 0 and not self._stopping
        wanted, self._try_claims = self._try_claims or is_due, False
        later = list[Waiting]()
        if self._journal and self._waiting.appends and self._put_in_seconds() > 0:
            later, self._waiting.appends = self._waiting.appends, later
        if not wanted and not self._waiting.has_work:
            self._waiting.appends = later
            return None
        group, self._waiting = self._waiting, Group(appends=later)
        group.frees_claims = is_due
        return group

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
                smaller = part.parts_after(error)
                if not smaller:
                    self._refuse(part, groups, error)
                groups = [*smaller, *groups]
            else:
                self.watchdog.passed()
                try:
                    self._answer(part, *results)
                except Exception as fault:  # noqa: BLE001  (raised after the other parts)
                    faults.append(fault)
                coming = len(self._waiting.appends)
                self._delay.committed(len(part.appends), waiting=coming)
        if faults:
            raise faults[0]

    def _answer(self, group: Group, jobs: Any, appends: Any, claims: Any) -> None:
        """Hand out the results of a commit, after everything in memory knows of it.

        A claim without a batch waits for a later transaction.
        """
        try:
            for (job, future), result in zip(group.jobs, jobs, strict=True):
                job.then(result, not future.done())
            if group.appends:
                self._appends.committed([item for item, _ in group.appends], appends)
            if group.claims or group.frees_claims:
                wanted = [not future.done() for _, future in group.claims]
                self._claims.committed(claims, wanted)
        finally:
            _hand_out(group.jobs, jobs)
            if group.put is None:
                _hand_out(group.appends, appends)
            else:
                group.put.committed()
                self._puts.add(group.put.done)
                put = functools.partial(self._put, group.appends, appends)
                group.put.done.add_done_callback(put)
            for waiting, batch in zip(group.claims, claims, strict=True):
                if batch is None:
                    self._waiting.claims.append(waiting)
                else:
                    _hand_out([waiting], [batch])

    def _put(self, waiting: list[Waiting], results: Any, done: asyncio.Future[None]) -> None:
        """Hand out the receipts of appends that are in the file, once the journal has them."""
        self._puts.discard(done)
        fault = OutboxUnavailableError() if done.cancelled() else done.exception()
        words = str(fault)
        _hand_out(
            waiting,
            [
                OutboxUnavailableError(words) if fault and not _is_error(one) else one
                for one in results
            ],
        )
        self._arrived.set()

    def _refuse(self, part: Group, others: list[Group], error: Exception) -> None:
        """Raise `error` to the submitters of `part`, and to all if nothing can be written."""
        self._fail(part, error)
        if self.watchdog.failed(error):
            while others:
                self._fail(others.pop(), error)
            # Items that came during the attempt do not wait for another one.
            self._fail_waiting(error)

    def _fail_waiting(self, error: Exception) -> None:
        group, self._waiting = self._waiting, Group()
        self._fail(group, error)

    def _fail(self, group: Group, error: Exception) -> None:
        """Raise `error` to the submitters of the group, which has left no trace."""
        group.fail(error)
        self._appends.failed([item for item, _ in group.appends])

    async def _probe(self) -> None:
        """Find out by a real write whether the cause of a failure is gone."""
        try:
            with self.watchdog.watching():
                await self._commits.probe()
        except OutboxUnavailableError as error:
            self.watchdog.probed(error)
        else:
            self.watchdog.probed(None)

    async def _checkpoint(self) -> None:
        """Copy the log into the database; the commits that filled it have been answered."""
        try:
            with self.watchdog.watching():
                await self._commits.checkpoint()
        except OutboxUnavailableError as error:
            self.watchdog.failed(error)


def _is_error(result: object) -> bool:
    return isinstance(result, Exception)


def _hand_out(waiting: list[Waiting], results: Any) -> None:
    for (_, future), result in zip(waiting, results, strict=True):
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
