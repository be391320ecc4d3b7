"""The outbox in one SQLite file: opens it for one process and hands out its parts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from service.errors import OutboxUnavailableError
from service.observe.recorder import NullRecorder, Recorder
from service.outbox.clock import Clock
from service.outbox.fair_share import FairShare
from service.outbox.limits import Limits
from service.outbox.sqlite.appends import SqliteAppends
from service.outbox.sqlite.claims import SqliteClaims
from service.outbox.sqlite.commit import SqliteCommits
from service.outbox.sqlite.confirmations import SqliteConfirmations
from service.outbox.sqlite.damage import Damage
from service.outbox.sqlite.delivery import SqliteDelivery
from service.outbox.sqlite.disk import Disk
from service.outbox.sqlite.faults import is_disk_trouble
from service.outbox.sqlite.health import SqliteHealth
from service.outbox.sqlite.inspector import SqliteInspector
from service.outbox.sqlite.intake import SqliteIntake
from service.outbox.sqlite.jobs import JobRunner, SqliteJobs
from service.outbox.sqlite.key_uses import EarlierUses
from service.outbox.sqlite.lock import LockTimings, WriterLock, sole_writer
from service.outbox.sqlite.maintenance import SqliteMaintenance
from service.outbox.sqlite.memory import Memory
from service.outbox.sqlite.positions import SqlitePositions
from service.outbox.sqlite.purge import SqlitePurger
from service.outbox.sqlite.queue import SqliteQueue
from service.outbox.sqlite.quota import BytesCount, StoredCounts
from service.outbox.sqlite.reader import SqliteReader
from service.outbox.sqlite.recovery import Recovery
from service.outbox.sqlite.removal import Removal
from service.outbox.sqlite.repairs import SqliteRepairs
from service.outbox.sqlite.salvage import Salvage
from service.outbox.sqlite.samples import SqliteSamples
from service.outbox.sqlite.settings import SqliteSettings
from service.outbox.sqlite.settlements import SqliteSettlements
from service.outbox.sqlite.throttle import ClaimThrottle
from service.outbox.sqlite.timings import WriterTimings
from service.outbox.sqlite.trail import SqliteTrail
from service.outbox.sqlite.writer import SqliteWriter
from service.supervisor import end

log = structlog.get_logger(__name__)
_BYTES_PAUSE_SECONDS = 0.02


class SqliteOutbox:
    """The parts of one outbox, and how it is; made by `open_sqlite_outbox`."""

    def __init__(
        self,
        path: Path,
        lock: WriterLock,
        limits: Limits,
        recorder: Recorder,
        *,
        timings: WriterTimings,
        fair_share: FairShare,
    ) -> None:
        self._path, self._disk, self._timings = path, Disk(path.resolve().parent), timings
        clock, memory, now = Clock(), Memory(), time.monotonic
        self._damage = damage = Damage(path)
        self._counts = counts = StoredCounts(limits, fair_share)
        self._bytes_count = BytesCount()
        salvage = Salvage(path, damage)
        self.claims = claims = SqliteClaims(clock, counts, recorder, salvage)
        settlements = SqliteSettlements(clock, counts, claims)
        appends = SqliteAppends(counts, claims.picker, recorder, memory, clock)
        kind = SqliteJobs()
        self.recovery = Recovery(path, claims, memory, counts, self._bytes_count, damage)
        self.commits = commits = SqliteCommits(path, lock, self.recovery, recorder, timings)
        kinds = (settlements, kind, appends)
        self.writer = writer = SqliteWriter(commits, kinds, claims, recorder, timings, damage)
        self._reader = reader = SqliteReader(path, timings, damage)
        self.jobs = jobs = JobRunner(writer, kind)
        self.delivery = delivery = SqliteDelivery(jobs, memory)
        removal = Removal(self._bytes_count)
        self.purger = purger = SqlitePurger(writer, jobs, counts, removal, clock, lock)
        self._health = SqliteHealth(writer, self._disk, lock, damage, now)
        self.intake = self._make_intake(appends, EarlierUses(reader, memory, clock))
        self.queue = self._make_queue(settlements, appends)
        self.confirmations = SqliteConfirmations(reader, jobs, counts, clock, memory)
        self.inspector = SqliteInspector(reader, path)
        self.repairs = SqliteRepairs(jobs, delivery, counts, removal, purger)
        self.positions = SqlitePositions(reader)
        self.settings = SqliteSettings(reader, jobs)
        self.samples = SqliteSamples(reader, jobs)
        self.trail = SqliteTrail(jobs)
        self.maintenance = SqliteMaintenance(path, self._disk, lock, commits, writer, now)

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        return self._health.failure

    @property
    def undelivered(self) -> int:
        """How many rows are pending or delivering, from memory."""
        return self._counts.total

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[SqliteOutbox]:
        """Recover what an earlier process left, then serve; closes the file at the end.

        On a disk that is full or fails it serves too: it refuses events and tries again.
        """
        try:
            await self._start()
            tasks = [
                asyncio.create_task(self._count_bytes(), name="outbox-bytes"),
                asyncio.create_task(self.maintenance.run(), name="outbox-maintenance"),
            ]
            try:
                yield self
            finally:
                for task in tasks:
                    await end(task)
        finally:
            await self._reader.close()
            await self.writer.stop()

    def _make_intake(self, appends: SqliteAppends, uses: EarlierUses) -> SqliteIntake:
        return SqliteIntake(self.writer, appends, self._counts, uses, self._reader, self._health)

    def _make_queue(self, settlements: SqliteSettlements, appends: SqliteAppends) -> SqliteQueue:
        throttle = ClaimThrottle(
            self._timings.pace,
            lambda: appends.appended,
            clock=time.monotonic,
            used=time.process_time,
        )
        return SqliteQueue(self.writer, self.claims, settlements, throttle)

    async def _start(self) -> None:
        failure: OutboxUnavailableError | None = None
        try:
            await self.commits.open()
        except OutboxUnavailableError as error:
            if not self._can_wait_for_disk(error):
                raise
            await self.recovery.read_at_rest()
            failure = error
        self.writer.start(failure)

    def _can_wait_for_disk(self, error: OutboxUnavailableError) -> bool:
        """Whether the outbox exists and only its disk keeps it from being opened."""
        exists = bool(self._path.stat().st_size)
        return exists and (is_disk_trouble(error) or self._disk.is_short())

    async def _count_bytes(self) -> None:
        """Count the bytes stored before the start, a page at a time, while the outbox serves."""
        while not self._bytes_count.is_done:
            try:
                page = await self.writer.between_commits(self._bytes_count.count_page)
            except OutboxUnavailableError:
                if self._damage.is_found:
                    return
            else:
                self._counts.add_bytes(page)
            await asyncio.sleep(_BYTES_PAUSE_SECONDS)


@contextlib.asynccontextmanager
async def open_sqlite_outbox(
    path: Path,
    *,
    max_pending: int,
    max_pending_per_user: int,
    max_bytes: int | None = None,
    max_bytes_per_user: int | None = None,
    socket: str | None = None,
    recorder: Recorder | None = None,
    timings: WriterTimings | None = None,
    fair_share: FairShare | None = None,
    lock_timings: LockTimings | None = None,
) -> AsyncIterator[SqliteOutbox]:
    """The outbox at `path`, which is made if missing, with this process as its only writer.

    `socket` is where operator commands reach this process. Raises OutboxBusyError,
    SchemaTooNewError or OutboxUnavailableError.
    """
    async with sole_writer_soon(path, socket, lock_timings) as lock:
        outbox = SqliteOutbox(
            path,
            lock,
            Limits(max_pending, max_pending_per_user, max_bytes, max_bytes_per_user),
            recorder or NullRecorder(),
            timings=timings or WriterTimings(),
            fair_share=fair_share or FairShare(),
        )
        async with outbox.opened():
            yield outbox


@contextlib.asynccontextmanager
async def sole_writer_soon(
    path: Path, socket: str | None, timings: LockTimings | None
) -> AsyncIterator[WriterLock]:
    """`sole_writer`, which may wait, in a thread."""
    opening = sole_writer(path, socket=socket, timings=timings)
    with contextlib.ExitStack() as stack:
        yield await asyncio.to_thread(stack.enter_context, opening)
