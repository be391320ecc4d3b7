"""The outbox in one SQLite file: Intake, Queue, Operations and Scopes behind one object.

Opens the file for one process (lock, migrations, recovery), holds the writer and the reader, and
keeps the counts that refuse an append without asking the file. Statements live beside what they
do: sqlite_intake, sqlite_reading, sqlite_repair, and sqlite_statements for sqlite_queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from service.errors import OutboxFullError, OutboxUnavailableError, TooManyPendingError
from service.observe.recorder import NullRecorder, Recorder
from service.outbox.clock import Clock
from service.outbox.event import Event
from service.outbox.inngest_id import InngestIds
from service.outbox.model import (
    Batch,
    ClaimRequest,
    DeliveryRecord,
    Filter,
    IdempotencyKey,
    Receipt,
    Row,
    SentEntry,
    Settlement,
    Stats,
)
from service.outbox.schema import migrate
from service.outbox.sqlite import changes as sqlite_repair
from service.outbox.sqlite import confirmations
from service.outbox.sqlite.changes import Job, Removed, SqliteWrites, Write, nothing
from service.outbox.sqlite.claims import SqliteClaims, SqliteSettlements, release
from service.outbox.sqlite.connection import has_wal_reset_bug, open_reader
from service.outbox.sqlite.disk import Disk
from service.outbox.sqlite.intake import Append, SqliteIntake
from service.outbox.sqlite.lock import sole_writer
from service.outbox.sqlite.maintenance import SqliteUpkeep
from service.outbox.sqlite.quota import PendingCounts, counting_earlier_rows
from service.outbox.sqlite.reader import SqliteReading
from service.outbox.sqlite.throttle import Pace
from service.outbox.sqlite.wal import SqliteLog
from service.outbox.sqlite.writer import STUCK_SECONDS, SqliteWriter

T = TypeVar("T")

log = structlog.get_logger(__name__)

_FULL_RETRY_SECONDS = 5
_DISK_SHORT = "The disk of the outbox is nearly full."


class SqliteOutbox:
    """See the ports in `service.outbox.model`; made by `open_sqlite_outbox`."""

    def __init__(
        self, path: Path, *, max_pending: int, max_pending_per_user: int, recorder: Recorder
    ) -> None:
        self._path = path
        self._counts = PendingCounts(max_pending, max_pending_per_user)
        self._clock = Clock()
        self._intake = SqliteIntake(self._counts, recorder)
        self._claims = SqliteClaims(self._clock, poke=self._poke, release=self._release)
        self._settlements = SqliteSettlements(self._clock, self._counts, self._claims)
        self._writes = SqliteWrites()
        self.writer = SqliteWriter(
            path,
            kinds=(self._settlements, self._writes, self._intake, self._claims),
            standing=(self._claims,),
            recorder=recorder,
        )
        self._reading: SqliteReading | None = None
        self._disk = Disk(path.resolve().parent)
        self._upkeep = SqliteUpkeep(SqliteLog(path), self._disk, self.writer, self._write)
        self._pace = Pace(lambda: self._intake.appended, time.monotonic)
        self._delivery: DeliveryRecord
        self._inngest_ids: InngestIds
        self.scope_revision = 0
        self.recovered = 0

    # Intake

    async def append(
        self, event: Event, *, key: IdempotencyKey | None = None, trace: str | None = None
    ) -> Receipt:
        """See Intake.append."""
        try:
            self._refuse_if_no_room(event.owner)
        except (TooManyPendingError, OutboxFullError, OutboxUnavailableError):
            if key and (first := await self._soon(self.reading.receipt(event.owner, key))):
                return first
            raise
        self._counts.entered(event.owner)
        return await self.writer.submit(self._intake, Append(event, key, trace))

    async def find(self, event_id: str) -> Row | None:
        """See Intake.find."""
        return await self._soon(self.reading.find(event_id))

    # Queue

    async def claim(self, ask: ClaimRequest) -> Batch:
        """See Queue.claim."""
        if pause := self._pace.pause_seconds():
            await asyncio.sleep(pause)
        self._pace.claimed()
        future: asyncio.Future[Batch] = self.writer.submit(self._claims, ask)
        self.writer.poke()
        try:
            return await future
        except asyncio.CancelledError:
            # The batch may have come in the moment of the cancelling.
            if future.done() and not future.cancelled() and not future.exception():
                self._claims.untaken(future.result())
            raise

    async def settle(self, settlement: Settlement) -> int:
        """See Queue.settle."""
        return await self.writer.submit(self._settlements, settlement)

    async def load_delivery(self) -> DeliveryRecord:
        """See Queue.load_delivery."""
        return self._delivery

    async def save_delivery(self, record: DeliveryRecord) -> DeliveryRecord:
        """See Queue.save_delivery."""
        return await self._write(sqlite_repair.save_delivery(record), self._delivery_saved)

    # Confirmations

    @property
    def confirmations(self) -> SqliteOutbox:
        """The part that confirms sent rows."""
        return self

    @property
    def inngest_ids(self) -> InngestIds:
        """How the ULIDs of this outbox's rows follow from them."""
        return self._inngest_ids

    async def sent(self, limit: int, after_seq: int = 0) -> Sequence[SentEntry]:
        """A page of sent rows, by their number."""
        return await self.reading.run(confirmations.sent, limit, after_seq)

    async def count_sent(self) -> int:
        """How many rows are sent."""
        return await self.reading.run(confirmations.count_sent)

    async def confirm(self, seqs: Sequence[int]) -> int:
        """Sent rows become delivered; how many were still sent."""
        return await self._write(confirmations.confirm(seqs))

    async def resend(self, seqs: Sequence[int], note: str) -> int:
        """Sent rows become pending with `note`; how many were still sent."""
        return len((await self._write(confirmations.resend(seqs, note), self._replayed)).ids)

    async def delivered(
        self, limit: int, after_seq: int = 0, *, within_seconds: float | None = None
    ) -> Sequence[SentEntry]:
        """A page of delivered rows, by their number."""
        return await self.reading.run(confirmations.delivered, limit, after_seq, within_seconds)

    # Operations

    async def stats(self) -> Stats:
        """See Operations.stats."""
        return await self.reading.stats()

    async def rows(self, wanted: Filter) -> list[Row]:
        """See Operations.rows."""
        return await self.reading.rows(wanted)

    async def payload(self, event_id: str) -> bytes | None:
        """See Operations.payload."""
        return await self.reading.payload(event_id)

    async def audit(self, limit: int) -> list[dict[str, object]]:
        """See Operations.audit."""
        return await self.reading.audit(limit)

    async def replay(self, wanted: Filter, *, actor: str) -> list[str]:
        """See Operations.replay."""
        return (await self._write(sqlite_repair.replay(wanted, actor), self._replayed)).ids

    async def discard(self, wanted: Filter, *, actor: str) -> list[str]:
        """See Operations.discard."""
        return (await self._write(sqlite_repair.discard(wanted, actor), self._discarded)).ids

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """See Operations.purge. Gives the space back to the file system."""
        return await self._upkeep.purge(older_than_seconds=older_than_seconds, actor=actor)

    async def set_paused(self, *, paused: bool, actor: str) -> DeliveryRecord:
        """See Operations.set_paused."""
        return await self._write(
            sqlite_repair.set_paused(actor, paused=paused), self._delivery_saved
        )

    # Scopes

    async def load_scope(self, scope: str, scope_id: str) -> dict[str, object] | None:
        """See Scopes.load_scope."""
        return await self._soon(self.reading.load_scope(scope, scope_id))

    async def save_scope(self, scope: str, scope_id: str, settings: dict[str, object]) -> None:
        """See Scopes.save_scope."""
        await self._write(sqlite_repair.save_scope(scope, scope_id, settings), self._scope_saved)

    # Health

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        if not self.writer.alive:
            return "The outbox's writer has ended."
        if self.writer.failure:
            return str(self.writer.failure)
        return _DISK_SHORT if self._disk.is_short() else None

    @property
    def undelivered(self) -> int:
        """How many rows are pending or delivering, from memory."""
        return self._counts.total

    async def tidy(self) -> None:
        """Keep the write-ahead log small; called every few seconds."""
        await self._upkeep.tidy()

    @property
    def reading(self) -> SqliteReading:
        """The reading half."""
        if self._reading is None:
            raise OutboxUnavailableError("The outbox is not open.")
        return self._reading

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[SqliteOutbox]:
        """Recover what an earlier process left, then serve; closes the file at the end."""
        await self.writer.start()
        try:
            self.recovered, self._delivery = await self._write(self._recover)
            self._inngest_ids = await self._write(confirmations.inngest_ids)
            async with (
                open_reader(self._path) as reader,
                counting_earlier_rows(self._path, self._counts),
            ):
                self._reading = SqliteReading(reader, self._path)
                yield self
        finally:
            self._reading = None
            await self.writer.stop()

    def _recover(self, connection: sqlite3.Connection) -> tuple[int, DeliveryRecord]:
        return self._claims.recover(connection), sqlite_repair.load_delivery(connection)

    def _poke(self) -> None:
        self.writer.poke()

    def _release(self, claim: str) -> None:
        """Free a claim's rows soon; if that fails, its lease does so later."""
        work = Write(lambda connection: release(connection, claim), self._released)
        released = self.writer.submit(self._writes, work)
        released.add_done_callback(lambda late: late.cancelled() or late.exception())

    async def _write(self, job: Job[T], done: Callable[[T], None] = nothing) -> T:
        result: T = await self.writer.submit(self._writes, Write(job, done))
        return result

    def _delivery_saved(self, record: DeliveryRecord) -> None:
        self._delivery = record

    def _scope_saved(self, _: object) -> None:
        self.scope_revision += 1

    def _released(self, _: object) -> None:
        self.writer.poke()

    def _replayed(self, changed: Removed) -> None:
        self._counts.add_found(changed.pending_by_owner)
        self.writer.poke()

    def _discarded(self, changed: Removed) -> None:
        for owner, count in changed.pending_by_owner.items():
            self._counts.left(owner, count)

    async def _soon(self, read: Awaitable[T]) -> T:
        """What a request reads; it does not wait for a disk that hangs."""
        try:
            async with asyncio.timeout(STUCK_SECONDS):
                return await read
        except TimeoutError as error:
            raise OutboxUnavailableError("The outbox's disk does not answer.") from error

    def _refuse_if_no_room(self, owner: str) -> None:
        self._counts.refuse_if_full(owner, _FULL_RETRY_SECONDS)
        self.writer.refuse_if_failing()
        if self._disk.is_short():
            raise OutboxUnavailableError(_DISK_SHORT)


@contextlib.asynccontextmanager
async def open_sqlite_outbox(
    path: Path,
    *,
    max_pending: int,
    max_pending_per_user: int,
    socket: str | None = None,
    recorder: Recorder | None = None,
) -> AsyncIterator[SqliteOutbox]:
    """The outbox at `path`, made when it is not there, with this process as its only writer.

    `socket` is where operator commands reach this process. Raises OutboxBusyError,
    SchemaTooNewError or OutboxUnavailableError.
    """
    if has_wal_reset_bug(sqlite3.sqlite_version_info):
        # One connection of one process writes here, so only others could meet the bug.
        log.warning("sqlite_has_wal_reset_bug", version=sqlite3.sqlite_version, fixed_in="3.51.3")
    with sole_writer(path, socket=socket):
        await asyncio.to_thread(migrate, f"sqlite:///{path}")
        outbox = SqliteOutbox(
            path,
            max_pending=max_pending,
            max_pending_per_user=max_pending_per_user,
            recorder=recorder or NullRecorder(),
        )
        async with outbox.opened():
            yield outbox
