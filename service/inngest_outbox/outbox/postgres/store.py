"""The outbox on PostgreSQL: opens its parts in order and closes them in reverse.

Any number of processes on any number of hosts share one outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterator

import psycopg

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.recorder import NullRecorder, Recorder
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.limits import FairShare, Limits
from inngest_outbox.outbox.postgres.appends import PostgresAppends
from inngest_outbox.outbox.postgres.confirmations import PostgresConfirmations
from inngest_outbox.outbox.postgres.counts import PostgresCounts
from inngest_outbox.outbox.postgres.database.faults import fault_at, told_at
from inngest_outbox.outbox.postgres.database.pool import PoolTimings, PostgresPool
from inngest_outbox.outbox.postgres.database.schema import warn_of_others
from inngest_outbox.outbox.postgres.inbox import PostgresInbox
from inngest_outbox.outbox.postgres.inbox_row import ReadEvent
from inngest_outbox.outbox.postgres.inspector import PostgresInspector
from inngest_outbox.outbox.postgres.intake import PostgresIntake
from inngest_outbox.outbox.postgres.maintenance import PostgresMaintenance
from inngest_outbox.outbox.postgres.queue import PostgresQueue, Wakeup
from inngest_outbox.outbox.postgres.quota import PostgresQuota
from inngest_outbox.outbox.postgres.records import (
    PostgresDelivery,
    PostgresSamples,
    PostgresScopes,
    PostgresTrail,
)
from inngest_outbox.outbox.postgres.repairs import PostgresRepairs
from inngest_outbox.outbox.postgres.rows import PostgresRows
from inngest_outbox.outbox.schema import migrate, pending
from inngest_outbox.supervisor import Supervisor


class PostgresOutbox:
    """Hands out the parts; made by `open_postgres_outbox`."""

    def __init__(
        self, url: str, *, recorder: Recorder, timings: PoolTimings | None, serves: bool
    ) -> None:
        self.url = url
        self.supervisor = supervisor = Supervisor(recorder)
        self.pool = pool = PostgresPool(url, timings=timings)
        self.wakeup = wakeup = Wakeup()
        self.scopes = PostgresScopes(pool, supervisor)
        self.delivery = delivery = PostgresDelivery(pool)
        self.confirmations = PostgresConfirmations(pool, wakeup, serves=serves)
        self.journal: None = None  # of SQLite only
        self.rows = self.positions = rows = PostgresRows(pool, self._inngest_ids)
        self.inspector = PostgresInspector(pool, rows, delivery)
        self.samples = PostgresSamples(pool)
        self.trail = PostgresTrail(pool)
        self.repairs = PostgresRepairs(pool, wakeup, delivery)

    def _inngest_ids(self) -> InngestIds:
        return self.confirmations.inngest_ids

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        return self.pool.failure or "; ".join(self.supervisor.faults) or None


class ServedPostgresOutbox(PostgresOutbox):
    """An outbox that is served: it takes events and hands them out too."""

    def __init__(
        self,
        url: str,
        limits: Limits,
        *,
        recorder: Recorder,
        timings: PoolTimings | None,
        fair_share: FairShare,
        read_event: ReadEvent,
        shared_ids: Collection[str],
    ) -> None:
        super().__init__(url, recorder=recorder, timings=timings, serves=True)
        pool, wakeup, supervisor = self.pool, self.wakeup, self.supervisor
        counts = PostgresCounts(pool, fair_share)
        self.quota = quota = PostgresQuota(counts, supervisor, limits, fair_share)
        appends = PostgresAppends(pool, recorder, self._inngest_ids, shared_ids)
        self.intake = PostgresIntake(pool, appends, quota, self.rows, wakeup, supervisor)
        self.inbox = PostgresInbox(
            pool, appends, quota, wakeup, supervisor, recorder=recorder, read=read_event
        )
        self.queue = PostgresQueue(pool, wakeup, supervisor)
        self._maintenance = PostgresMaintenance(pool, self.queue, self.confirmations, supervisor)

    @property
    def undelivered(self) -> int:
        """The number of rows that are pending or delivering, by the last count and later ones."""
        return self.quota.pending

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[ServedPostgresOutbox]:
        """Serve until the end; then flush what waits, release claims and close."""
        parts = (
            self.pool,
            self.scopes,
            self.confirmations,
            self.quota,
            self.inbox,
            self._maintenance,
            self.queue,
            self.intake,
        )
        async with contextlib.AsyncExitStack() as stack:
            for part in parts:
                await stack.enter_async_context(part)
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
    read_event: ReadEvent,
    fair_share: FairShare | None = None,
    timings: PoolTimings | None = None,
    shared_ids: Collection[str] = (),
) -> AsyncIterator[ServedPostgresOutbox]:
    """The outbox at `url`, migrated to this code's schema.

    `read_event` reads what is appended in SQL. The owners `shared_ids` use each other's event ids.
    Raises SchemaTooNewError, and OutboxUnavailableError when the database can't be reached or takes
    no writes.
    """
    await asyncio.to_thread(migrate, url)
    await asyncio.to_thread(warn_of_others, url)
    outbox = ServedPostgresOutbox(
        url,
        Limits(max_pending, max_pending_per_user, max_bytes, max_bytes_per_user),
        recorder=recorder,
        timings=timings,
        fair_share=fair_share or FairShare(),
        read_event=read_event,
        shared_ids=shared_ids,
    )
    async with contextlib.AsyncExitStack() as stack:
        with _fault_named(url, outbox):
            await stack.enter_async_context(outbox.opened())
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
            "`python -m inngest_outbox migrate`."
        )
    outbox = PostgresOutbox(url, recorder=NullRecorder(), timings=None, serves=False)
    async with outbox.pool, outbox.confirmations:
        with _fault_named(url, outbox):
            yield outbox


@contextlib.contextmanager
def _fault_named(url: str, outbox: PostgresOutbox) -> Iterator[None]:
    """Name the server and the cause of a fault, for the person who starts a command."""
    try:
        yield
    except OutboxUnavailableError as error:
        if isinstance(error.__cause__, psycopg.Error):
            raise OutboxUnavailableError(fault_at(url, error.__cause__)) from error
        if outbox.failure:
            raise OutboxUnavailableError(told_at(url, outbox.failure)) from error
        raise
