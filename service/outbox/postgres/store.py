"""The outbox on PostgreSQL: opens its parts in order and closes them in reverse.

Any number of processes on any number of hosts share one outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import psycopg

from service.errors import OutboxUnavailableError
from service.observe.recorder import NullRecorder, Recorder
from service.outbox.fair_share import FairShare
from service.outbox.fault_postgresql import fault_at, told_at
from service.outbox.inngest_id import InngestIds
from service.outbox.limits import Limits
from service.outbox.postgres.confirmations import PostgresConfirmations
from service.outbox.postgres.counts import PostgresCounts
from service.outbox.postgres.delivery import PostgresDelivery
from service.outbox.postgres.express import ExpressRows
from service.outbox.postgres.flush import PostgresFlush
from service.outbox.postgres.inspector import PostgresInspector
from service.outbox.postgres.intake import PostgresIntake
from service.outbox.postgres.leases import PostgresLeases
from service.outbox.postgres.maintenance import PostgresMaintenance
from service.outbox.postgres.marks import PostgresMarks
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.partitions import PostgresPartitions
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.positions import PostgresPositions
from service.outbox.postgres.queue import PostgresQueue
from service.outbox.postgres.quota import PostgresQuota
from service.outbox.postgres.repairs import PostgresRepairs
from service.outbox.postgres.samples import PostgresSamples
from service.outbox.postgres.settings import PostgresSettings
from service.outbox.postgres.timings import PoolTimings
from service.outbox.postgres.trail import PostgresTrail
from service.outbox.schema import migrate, pending
from service.supervisor import Supervisor


class PostgresOutbox:
    """Hands out the parts; made by `open_postgres_outbox`."""

    def __init__(
        self,
        url: str,
        limits: Limits,
        recorder: Recorder,
        *,
        fair_share: FairShare | None = None,
        timings: PoolTimings | None = None,
    ) -> None:
        self._supervisor = supervisor = Supervisor(recorder)
        self.pool = pool = PostgresPool(url, timings=timings)
        self.wakeup = wakeup = PostgresWakeup(url, pool, recorder, supervisor)
        self.settings = PostgresSettings(pool, wakeup, supervisor)
        express = ExpressRows()
        marks, leases = PostgresMarks(pool, express), PostgresLeases(pool)
        self.delivery = delivery = PostgresDelivery(pool)
        self._maintenance = PostgresMaintenance(pool, marks, leases, wakeup, supervisor)
        fair_share = fair_share or FairShare()
        counts = PostgresCounts(pool, fair_share)
        self._quota = PostgresQuota(pool, counts, supervisor, limits, fair_share)
        flush = PostgresFlush(pool, wakeup, express, recorder, self._inngest_ids)
        self.intake = PostgresIntake(pool, flush, self._quota, supervisor, self._inngest_ids)
        self.queue = PostgresQueue(pool, wakeup, marks, leases, express)
        self.confirmations = PostgresConfirmations(pool, wakeup)
        self.inspector = PostgresInspector(pool, delivery)
        self.positions = PostgresPositions(pool)
        self.samples = PostgresSamples(pool)
        self.trail = PostgresTrail(pool)
        self.repairs = PostgresRepairs(pool, wakeup, delivery, PostgresPartitions(pool))

    def _inngest_ids(self) -> InngestIds:
        return self.confirmations.inngest_ids

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        return self.pool.failure or "; ".join(self._supervisor.faults) or None

    @property
    def notify_ok(self) -> bool:
        """Whether wake-ups of other processes arrive; without them rows wait for a short poll."""
        return self.wakeup.notify_ok

    @property
    def undelivered(self) -> int:
        """How many rows are pending or delivering, by the last count and later changes."""
        return self._quota.pending

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[PostgresOutbox]:
        """Serve until the end; then flush what waits, release claims and close."""
        parts = (
            self.pool,
            self.wakeup,
            self.settings,
            self.confirmations,
            self._quota,
            self._maintenance,
            self.queue,
            self.intake,
        )
        async with contextlib.AsyncExitStack() as stack:
            for part in parts:
                await stack.enter_async_context(part)
            yield self

    @contextlib.asynccontextmanager
    async def opened_for_commands(self) -> AsyncIterator[PostgresOutbox]:
        """Only inspector, repairs and confirmations, until the end: nothing is claimed."""
        async with self.pool, self.wakeup, self.confirmations:
            yield self


@contextlib.asynccontextmanager
async def open_postgres_outbox(
    url: str,
    *,
    max_pending: int,
    max_pending_per_user: int,
    max_bytes: int | None = None,
    max_bytes_per_user: int | None = None,
    recorder: Recorder,
    fair_share: FairShare | None = None,
    timings: PoolTimings | None = None,
) -> AsyncIterator[PostgresOutbox]:
    """The outbox at `url`, migrated to this code's schema.

    Raises SchemaTooNewError, and OutboxUnavailableError when the database can't be reached.
    """
    await asyncio.to_thread(migrate, url)
    limits = Limits(max_pending, max_pending_per_user, max_bytes, max_bytes_per_user)
    outbox = PostgresOutbox(url, limits, recorder, fair_share=fair_share, timings=timings)
    async with outbox.opened():
        yield outbox


@contextlib.asynccontextmanager
async def open_postgres_operations(url: str) -> AsyncIterator[PostgresOutbox]:
    """The outbox at `url` for an operator's command.

    Changes no schema. Raises SchemaTooNewError, and OutboxUnavailableError when the database can't
    be reached or its schema is older.
    """
    if await asyncio.to_thread(pending, url):
        raise OutboxUnavailableError(
            "The outbox's schema is missing or older than this program; start the service or run "
            "`python -m service migrate`."
        )
    outbox = PostgresOutbox(url, Limits(1, 1), NullRecorder())
    async with outbox.opened_for_commands():
        with _fault_named(url, outbox):
            yield outbox


@contextlib.contextmanager
def _fault_named(url: str, outbox: PostgresOutbox) -> Iterator[None]:
    """Name the server and the cause of a fault, for the person at the command."""
    try:
        yield
    except OutboxUnavailableError as error:
        if isinstance(error.__cause__, psycopg.Error):
            raise OutboxUnavailableError(fault_at(url, error.__cause__)) from error
        if outbox.failure:
            raise OutboxUnavailableError(told_at(url, outbox.failure)) from error
        raise
