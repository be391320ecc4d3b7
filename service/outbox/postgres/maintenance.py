"""Work that one process does for all: moving the marks, ending leases, folding the counts.

Every process tries; the statements let one succeed. It runs often while rows move, else rarely.
Each process also tries an append that stores nothing, so that a full disk or a revoked right is
known before a post comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Self

from service.errors import OutboxUnavailableError
from service.outbox.postgres.availability import PROBE
from service.outbox.postgres.fold import FOLD
from service.outbox.postgres.leases import PostgresLeases
from service.outbox.postgres.marks import PostgresMarks
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.pool import PostgresPool
from service.supervisor import Supervisor

_BUSY_SECONDS = 0.5
_IDLE_SECONDS = 2.0
_FOLD_EVERY_SECONDS = 10.0
_PROBE_EVERY_SECONDS = 10.0
_QUIET_STATEMENTS = 3


class PostgresMaintenance:
    """A background task; an async context manager."""

    def __init__(
        self,
        pool: PostgresPool,
        marks: PostgresMarks,
        leases: PostgresLeases,
        wakeup: PostgresWakeup,
        supervisor: Supervisor,
    ) -> None:
        self._pool = pool
        self._marks = marks
        self._leases = leases
        self._wakeup = wakeup
        self._supervisor = supervisor
        self._fold_at = 0.0
        self._probe_at = time.monotonic() + _PROBE_EVERY_SECONDS

    async def __aenter__(self) -> Self:
        self._supervisor.watch("outbox-maintenance", self._keep)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("outbox-maintenance")

    async def _keep(self) -> None:
        while True:
            statements = self._pool.statements
            with contextlib.suppress(OutboxUnavailableError):
                await self._round()
            await asyncio.sleep(_BUSY_SECONDS)
            if self._pool.statements - statements <= _QUIET_STATEMENTS:
                await asyncio.sleep(_IDLE_SECONDS - _BUSY_SECONDS)

    async def _round(self) -> None:
        leases_are_over = await self._marks.look(_BUSY_SECONDS * 0.9)
        if leases_are_over and await self._leases.expire():
            self._wakeup.rows_are_due()
        if time.monotonic() >= self._fold_at:
            self._fold_at = time.monotonic() + _FOLD_EVERY_SECONDS
            await self._pool.run(FOLD)
        if time.monotonic() >= self._probe_at:
            self._probe_at = time.monotonic() + _PROBE_EVERY_SECONDS
            await self._pool.run(PROBE)
