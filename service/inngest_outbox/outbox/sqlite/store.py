"""The outbox in one SQLite file: opens it for one process and hands out its parts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.recorder import NullRecorder, Recorder
from inngest_outbox.outbox.clock import Clock
from inngest_outbox.outbox.limits import FairShare, Limits
from inngest_outbox.outbox.sqlite.appends import SqliteAppends
from inngest_outbox.outbox.sqlite.claims import SqliteClaims
from inngest_outbox.outbox.sqlite.commit import SqliteCommits
from inngest_outbox.outbox.sqlite.confirmations import SqliteConfirmations
from inngest_outbox.outbox.sqlite.file.connection import SqliteReader
from inngest_outbox.outbox.sqlite.file.disk import Disk
from inngest_outbox.outbox.sqlite.file.faults import Corruption, is_disk_trouble
from inngest_outbox.outbox.sqlite.file.journalled import Journal, JournalledFile
from inngest_outbox.outbox.sqlite.file.lock import WriterLock, sole_writer
from inngest_outbox.outbox.sqlite.health import SqliteHealth
from inngest_outbox.outbox.sqlite.inspector import SqliteInspector, SqlitePositions
from inngest_outbox.outbox.sqlite.intake import SqliteIntake
from inngest_outbox.outbox.sqlite.maintenance import SqliteMaintenance
from inngest_outbox.outbox.sqlite.queue import SqliteQueue, SqliteSettlements
from inngest_outbox.outbox.sqlite.records import (
    SqliteDelivery,
    SqliteSamples,
    SqliteScopes,
    SqliteTrail,
)
from inngest_outbox.outbox.sqlite.recovery import Recovery
from inngest_outbox.outbox.sqlite.repairs import SqlitePurger, SqliteRepairs
from inngest_outbox.outbox.sqlite.state import BytesCount, CachedState, StoredCounts
from inngest_outbox.outbox.sqlite.timings import ClaimThrottle, WriterTimings
from inngest_outbox.outbox.sqlite.writer import SqliteWriter
from inngest_outbox.supervisor import end

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
        accepts_loss: bool,
        shared_ids: Collection[str],
        journal: Journal | None,
    ) -> None:
        self.journal: Any = None  # of a room above; set once it is at work
        self._path, self._disk = path, Disk(path.resolve().parent)
        clock, state, now = Clock(), CachedState(), time.monotonic
        self._corruption = corruption = Corruption(path)
        self._counts = counts = StoredCounts(limits, fair_share)
        self._bytes_count = bytes_count = BytesCount()
        self.claims = claims = SqliteClaims(clock)
        appends = SqliteAppends(
            counts,
            claims.picker,
            recorder,
            state,
            clock,
            shared_ids,
            journalled=journal is not None,
        )
        self.recovery = Recovery(
            path, claims, state, counts, bytes_count, corruption, accepts_loss=accepts_loss
        )
        self.commits = commits = SqliteCommits(
            path,
            self.recovery,
            appends=appends,
            claims=claims,
            corruption=corruption,
            recorder=recorder,
            timings=timings,
            ended=state.keep_ages,
            journal=journal,
        )
        self.writer = writer = SqliteWriter(commits, appends, claims, recorder, timings, journal)
        self._reader = reader = SqliteReader(path, corruption, timings.stall_seconds)
        self._health = SqliteHealth(
            writer.watchdog,
            lambda: writer.alive,
            self._disk,
            lock,
            corruption,
            now,
            journal=journal,
        )
        self.intake = SqliteIntake(
            writer, counts, state, clock, reader, self._health, journal=journal
        )
        self.journalled = JournalledFile(
            reader,
            writer.run,
            appends.take,
            state=state,
            counts=counts,
            clock=clock,
            wake=writer.wake,
        )
        self.queue = SqliteQueue(
            writer,
            claims,
            SqliteSettlements(clock, state, counts, claims),
            ClaimThrottle(
                timings.pace, lambda: appends.appended, clock=now, used=time.process_time
            ),
        )
        self.delivery = delivery = SqliteDelivery(writer, state)
        self.confirmations = SqliteConfirmations(reader, writer, counts, clock, state)
        self.inspector = SqliteInspector(reader, path)
        self.positions = SqlitePositions(reader)
        self.purger = purger = SqlitePurger(writer, counts, bytes_count, clock, state, lock)
        payloads = SqlitePurger(writer, counts, bytes_count, clock, state, lock, only_payloads=True)
        self.scopes = scopes = SqliteScopes(reader, writer)
        self.repairs = SqliteRepairs(
            writer,
            delivery,
            counts,
            bytes_count,
            purger=purger,
            payload_purger=payloads,
            scopes=scopes,
            log=commits.log,
            journal=journal,
        )
        self.samples = SqliteSamples(reader, writer, state)
        self.trail = SqliteTrail(writer)
        self.maintenance = SqliteMaintenance(self._disk, lock, commits, writer, now)

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        return self._health.failure

    @property
    def undelivered(self) -> int:
        """The number of pending and delivering rows, from memory."""
        return self._counts.total

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[SqliteOutbox]:
        """Recover what an earlier process left, then serve; closes the file at the end.

        On a disk that is full or fails it serves too: it refuses events and tries again. A damaged
        file is read, and never written.
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

    async def _start(self) -> None:
        failure: OutboxUnavailableError | None = None
        try:
            await self.commits.open()
        except OutboxUnavailableError as error:
            is_damaged = self._corruption.fault is not None
            if not is_damaged and not self._can_wait_for_disk(error):
                raise
            await self._read_only(error, is_damaged=is_damaged)
            failure = error
        self.writer.start(failure)

    async def _read_only(self, error: OutboxUnavailableError, *, is_damaged: bool) -> None:
        """Read what the other parts need, with the log unless the disk takes no file beside it.

        Without its log a file that was half copied from it looks damaged.
        """
        try:
            await self.recovery.read_only(immutable=False)
        except OutboxUnavailableError:
            if is_damaged:
                raise
            try:
                await self.recovery.read_only(immutable=True)
            except OutboxUnavailableError:
                raise error from None

    def _can_wait_for_disk(self, error: OutboxUnavailableError) -> bool:
        """True if the outbox exists and only its disk keeps it from being opened."""
        exists = bool(self._path.stat().st_size)
        return exists and (is_disk_trouble(error) or self._disk.is_short())

    async def _count_bytes(self) -> None:
        """Count the bytes stored before the start, a page at a time, while the outbox serves."""
        while not self._bytes_count.is_done:
            try:
                page = await self.writer.between_commits(self._bytes_count.count_page)
            except OutboxUnavailableError:
                if self._corruption.fault is not None:
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
    accepts_loss: bool = False,
    shared_ids: Collection[str] = (),
    journal: Journal | None = None,
) -> AsyncIterator[SqliteOutbox]:
    """The outbox at `path`, which is made if missing, with this process as its only writer.

    `socket` is where operator commands reach this process. `accepts_loss` starts a file whose log
    is missing, or another's. The owners `shared_ids` use each other's event ids. An append is
    answered when the `journal` has it too. Raises OutboxBusyError, SchemaTooNewError,
    SchemaTooOldError or OutboxUnavailableError.
    """
    async with sole_writer_soon(path, socket) as lock:
        outbox = SqliteOutbox(
            path,
            lock,
            Limits(max_pending, max_pending_per_user, max_bytes, max_bytes_per_user),
            recorder or NullRecorder(),
            timings=timings or WriterTimings(),
            fair_share=fair_share or FairShare(),
            accepts_loss=accepts_loss,
            shared_ids=shared_ids,
            journal=journal,
        )
        async with outbox.opened():
            yield outbox


@contextlib.asynccontextmanager
async def sole_writer_soon(path: Path, socket: str | None) -> AsyncIterator[WriterLock]:
    """`sole_writer`, which may wait, in a thread."""
    opening = sole_writer(path, socket=socket)
    with contextlib.ExitStack() as stack:
        yield await asyncio.to_thread(stack.enter_context, opening)
