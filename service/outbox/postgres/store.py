"""The outbox on PostgreSQL: Intake, Queue, Operations and Scopes behind one object.

Any number of processes on any number of hosts share one outbox. This module opens the parts in
their order and closes them in reverse; what each does is in its own: postgres_pool (connections),
postgres_wakeup (who waits for rows), postgres_quota (limits), postgres_intake, postgres_queue,
postgres_lane, postgres_operations, postgres_scopes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from service.errors import OutboxUnavailableError
from service.observe.recorder import NullRecorder, Recorder
from service.outbox.event import Event
from service.outbox.model import (
    Batch,
    ClaimRequest,
    DeliveryRecord,
    Filter,
    IdempotencyKey,
    Receipt,
    Row,
    Settlement,
    Stats,
)
from service.outbox.postgres.intake import PostgresIntake
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.operations import PostgresOperations
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.queue import PostgresQueue
from service.outbox.postgres.quota import PostgresQuota
from service.outbox.postgres.relay_state import PostgresDelivery
from service.outbox.postgres.settings import PostgresScopes
from service.outbox.schema import migrate, pending
from service.supervisor import Supervisor


class PostgresOutbox:
    """See the ports in `service.outbox.model`; made by `open_postgres_outbox`."""

    def __init__(
        self, url: str, *, max_pending: int, max_pending_per_user: int, recorder: Recorder
    ) -> None:
        self.pool = PostgresPool(url)
        self._supervisor = supervisor = Supervisor(recorder)
        self._scopes = PostgresScopes(self.pool, supervisor)
        self._wakeup = PostgresWakeup(
            url, self.pool, recorder, supervisor, self._scopes.changed_elsewhere
        )
        self._quota = PostgresQuota(self.pool, supervisor, max_pending, max_pending_per_user)
        self._intake = PostgresIntake(self.pool, self._wakeup, self._quota, recorder, supervisor)
        self._queue = PostgresQueue(self.pool, self._wakeup)
        self._delivery = PostgresDelivery(self.pool)
        self._operations = PostgresOperations(self.pool, self._wakeup, self._delivery)

    # Intake

    async def append(
        self, event: Event, *, key: IdempotencyKey | None = None, trace: str | None = None
    ) -> Receipt:
        """See Intake.append."""
        return await self._intake.append(event, key=key, trace=trace)

    async def find(self, event_id: str) -> Row | None:
        """See Intake.find."""
        return await self._operations.find(event_id)

    # Queue

    async def claim(self, ask: ClaimRequest) -> Batch:
        """See Queue.claim."""
        return await self._queue.claim(ask)

    async def settle(self, settlement: Settlement) -> int:
        """See Queue.settle."""
        return await self._queue.settle(settlement)

    async def load_delivery(self) -> DeliveryRecord:
        """See Queue.load_delivery."""
        return await self._delivery.load()

    async def save_delivery(self, record: DeliveryRecord) -> DeliveryRecord:
        """See Queue.save_delivery."""
        return await self._delivery.save(record)

    # Operations

    async def stats(self) -> Stats:
        """See Operations.stats."""
        return await self._operations.stats()

    async def rows(self, wanted: Filter) -> list[Row]:
        """See Operations.rows."""
        return await self._operations.rows(wanted)

    async def payload(self, event_id: str) -> bytes | None:
        """See Operations.payload."""
        return await self._operations.payload(event_id)

    async def replay(self, wanted: Filter, *, actor: str) -> list[str]:
        """See Operations.replay."""
        return await self._operations.replay(wanted, actor=actor)

    async def discard(self, wanted: Filter, *, actor: str) -> list[str]:
        """See Operations.discard."""
        return await self._operations.discard(wanted, actor=actor)

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """See Operations.purge."""
        return await self._operations.purge(older_than_seconds=older_than_seconds, actor=actor)

    async def set_paused(self, *, paused: bool, actor: str) -> DeliveryRecord:
        """See Operations.set_paused."""
        return await self._delivery.set_paused(paused=paused, actor=actor)

    async def audit(self, limit: int) -> list[dict[str, object]]:
        """See Operations.audit."""
        return await self._operations.audit(limit)

    # Scopes

    async def load_scope(self, scope: str, scope_id: str) -> dict[str, object] | None:
        """See app_settings.Scopes.load_scope."""
        return await self._scopes.load(scope, scope_id)

    async def save_scope(self, scope: str, scope_id: str, settings: dict[str, object]) -> None:
        """See app_settings.Scopes.save_scope."""
        await self._scopes.save(scope, scope_id, settings)
        self._wakeup.scope_was_saved()

    @property
    def scope_revision(self) -> int:
        """See app_settings.Scopes.scope_revision."""
        return self._scopes.revision

    # Health

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        if not self.pool.available:
            return "The outbox's database does not answer."
        return "; ".join(self._supervisor.faults) or None

    @property
    def undelivered(self) -> int:
        """How many rows are pending or delivering, by the last count and what came since."""
        return self._quota.pending

    async def tidy(self) -> None:
        """Nothing: PostgreSQL looks after its files itself."""

    @property
    def notify_ok(self) -> bool:
        """Whether other processes' wake-ups are heard; without them rows wait for a short poll."""
        return self._wakeup.notify_ok

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[PostgresOutbox]:
        """Serve until the end; then flush what waits, give claims back and close."""
        parts = (
            self.pool, self._wakeup, self._scopes, self._quota, self._queue, self._intake
        )  # fmt: skip
        async with contextlib.AsyncExitStack() as stack:
            for part in parts:
                await stack.enter_async_context(part)
            yield self

    @contextlib.asynccontextmanager
    async def operating(self) -> AsyncIterator[PostgresOutbox]:
        """Only Operations, until the end: nothing is claimed, nobody is waited for."""
        async with self.pool, self._wakeup:
            yield self


@contextlib.asynccontextmanager
async def open_postgres_outbox(
    url: str, *, max_pending: int, max_pending_per_user: int, recorder: Recorder
) -> AsyncIterator[PostgresOutbox]:
    """The outbox at `url`, brought to the schema that this code knows.

    Raises SchemaTooNewError, and OutboxUnavailableError when the database can't be reached.
    """
    await asyncio.to_thread(migrate, url)
    outbox = PostgresOutbox(
        url,
        max_pending=max_pending,
        max_pending_per_user=max_pending_per_user,
        recorder=recorder,
    )
    async with outbox.opened():
        yield outbox


@contextlib.asynccontextmanager
async def open_postgres_operations(url: str) -> AsyncIterator[PostgresOutbox]:
    """The outbox at `url` for a person's command: only its Operations may be used.

    Changes no schema. Raises SchemaTooNewError, and OutboxUnavailableError when the database can't
    be reached or its schema is older.
    """
    if await asyncio.to_thread(pending, url):
        raise OutboxUnavailableError(
            "The outbox's schema is missing or older than this program; start the service or run "
            "`python -m service migrate`."
        )
    outbox = PostgresOutbox(url, max_pending=1, max_pending_per_user=1, recorder=NullRecorder())
    async with outbox.operating():
        yield outbox
