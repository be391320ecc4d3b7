"""Work that one process does for all: moving the watermarks, ending leases, folding the counts.

Every process tries; the statements let one succeed. It runs often while rows move, else rarely.
Each process also tries an append that stores nothing, so that a full disk or a revoked right is
known before a post comes.

While any transaction of the server is open, dead rows stay in the tables and their indexes. So each
statement that looks for work begins at a watermark below which there is no live row. Only the
service's own short transactions write these tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Self

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.postgres.confirmations import PostgresConfirmations
from inngest_outbox.outbox.postgres.database.pool import PostgresPool
from inngest_outbox.outbox.postgres.queue import PostgresQueue
from inngest_outbox.supervisor import Supervisor

_LOOK_SECONDS = 0.5
_FOLD_SECONDS = 10.0
_FORGET_SECONDS = 600.0
_PROBE_SECONDS = 10.0


class PostgresMaintenance:
    """A background task; an async context manager."""

    def __init__(
        self,
        pool: PostgresPool,
        queue: PostgresQueue,
        confirmations: PostgresConfirmations,
        supervisor: Supervisor,
    ) -> None:
        self._pool = pool
        self._queue = queue
        self._confirmations = confirmations
        self._supervisor = supervisor
        self._returns = pool.returns
        now = time.monotonic()
        self._fold_at, self._probe_at = 0.0, now + _PROBE_SECONDS
        self._forget_at = now + _FORGET_SECONDS

    async def __aenter__(self) -> Self:
        self._supervisor.watch("outbox-maintenance", self._keep)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("outbox-maintenance")

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(OutboxUnavailableError):
                await self._round()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _round(self) -> None:
        if self._returns != self._pool.returns:  # another server may answer now
            await self._confirmations.read_ids()
            self._returns = self._pool.returns
        [(leases_are_over, _)] = await self._pool.run(
            "LOOK", {"interval_seconds": _LOOK_SECONDS * 0.9}
        )
        if leases_are_over:
            await self._queue.expire()
        now = time.monotonic()
        if now >= self._fold_at:
            self._fold_at = now + _FOLD_SECONDS
            await self._pool.run("FOLD")
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_SECONDS
            await self._pool.run("FORGET_OWNERS")
        if now >= self._probe_at:
            self._probe_at = now + _PROBE_SECONDS
            await self._pool.run("PROBE")
