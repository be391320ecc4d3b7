"""The queue on PostgreSQL: waiting for rows, claiming and settling them.

A cancelled claim continues in the background and is released when its answer arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Self

from service.errors import OutboxUnavailableError
from service.outbox.model import (
    Batch,
    ClaimRequest,
    Entry,
    Isolated,
    Settlement,
)
from service.outbox.postgres.claims import CLAIM, CLAIM_EXPRESS, NEXT_DUE, claim_values
from service.outbox.postgres.express import ExpressRows
from service.outbox.postgres.leases import PostgresLeases
from service.outbox.postgres.marks import PostgresMarks
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.rows import meta_of
from service.outbox.postgres.settlements import SETTLE, settle_values

_CLAIM_SECONDS = 5.0
_SETTLE_SECONDS = 5.0
_LEAST_WAIT_SECONDS = 0.005
_WINDOW = 50_000
_MAX_WINDOW = 2**40


class PostgresQueue:
    """Hands out due rows; an async context manager that releases its claims at its exit."""

    def __init__(
        self,
        pool: PostgresPool,
        wakeup: PostgresWakeup,
        marks: PostgresMarks,
        leases: PostgresLeases,
        express: ExpressRows,
    ) -> None:
        self._pool = pool
        self._wakeup = wakeup
        self._marks = marks
        self._leases = leases
        self._express = express
        self._holder = uuid.uuid4().hex
        self._claiming = asyncio.Lock()
        self._window = _WINDOW
        self._attempts: set[asyncio.Task[Batch | float]] = set()
        self._releases: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._attempts, *self._releases, return_exceptions=True)
        with contextlib.suppress(OutboxUnavailableError):
            await self._leases.release_lost()
            if await self._leases.release_held():
                self._wakeup.rows_are_due()

    async def claim(self, wanted: ClaimRequest) -> Batch:
        """Wait until rows are due, then claim some: never empty.

        Repeated calls get other rows. After a cancellation no row stays claimed for longer than a
        lease. Raises OutboxUnavailableError.
        """
        while True:
            generation = self._wakeup.generation
            self._wakeup.claims_here()
            found = await self._claim_uncancelled(wanted)
            if isinstance(found, Batch):
                return found
            await self._wakeup.wait(generation, found)

    async def settle(self, settlement: Settlement) -> int:
        """Settle, atomically; returns how many rows were no longer under this claim.

        Safe to repeat. Raises OutboxUnavailableError: nothing was changed, or the outcome is
        unknown.
        """
        rows = await self._pool.run(
            SETTLE,
            settle_values(settlement),
            within_seconds=_SETTLE_SECONDS,
            repeat_with={"repeated": True},
        )
        stale, due_now, is_over = rows[0]
        if settlement.retry:
            self._express.stored()
        if is_over:
            self._leases.forget(settlement.claim)
        if due_now:
            self._wakeup.rows_are_due()
        return int(stale)

    async def _claim_uncancelled(self, wanted: ClaimRequest) -> Batch | float:
        attempt = asyncio.create_task(self._attempt(wanted), name="outbox-claim")
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            attempt.add_done_callback(self._abandon)
            raise

    def _abandon(self, attempt: asyncio.Task[Batch | float]) -> None:
        found = None if attempt.cancelled() or attempt.exception() else attempt.result()
        if isinstance(found, Batch):
            self._leases.lose(found.claim)
            release = asyncio.create_task(self._release_abandoned(), name="outbox-release")
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)

    async def _release_abandoned(self) -> None:
        """Release lost claims; what can't be released now is before the next claim."""
        with contextlib.suppress(OutboxUnavailableError):
            await self._release_lost()

    async def _release_lost(self) -> None:
        if await self._leases.release_lost():
            self._express.stored()
            self._wakeup.rows_are_due()

    async def _attempt(self, wanted: ClaimRequest) -> Batch | float:
        """A batch, or the seconds to wait for one."""
        async with self._claiming:
            await self._release_lost()
            claim = f"{self._holder}:{uuid.uuid4().hex}"
            express = self._express.may_wait
            turn = express and self._express.is_their_turn()
            try:
                # A repetition could find nothing because the first run had taken everything.
                rows = await self._pool.run(
                    CLAIM_EXPRESS if express else CLAIM,
                    claim_values(wanted, claim, self._window, express_turn=turn),
                    within_seconds=_CLAIM_SECONDS,
                    repeat_with=None,
                )
            except OutboxUnavailableError:
                self._leases.lose(claim)
                raise
        if not rows:
            return await self._wait_seconds(wanted)
        self._window = _WINDOW
        self._leases.hold(claim, wanted.lease_seconds)
        entries = tuple(Entry(*[*row[:8], meta_of(*row[8:-1])]) for row in rows)
        return Batch(claim, entries, b",".join([row[-1] for row in rows]))

    async def _wait_seconds(self, wanted: ClaimRequest) -> float:
        """Seconds until the next row is due by the database's clock, at most a poll.

        When a claim's window was empty and rows are beyond it, the next mark and a wider window are
        tried at once.
        """
        given = {"isolated": wanted.isolated is not Isolated.NONE, "window": self._window}
        [(due_seconds, more_beyond)] = await self._pool.run(NEXT_DUE, given)
        if more_beyond:
            await self._marks.look(0.0)
            self._window = min(self._window * 2, _MAX_WINDOW)
            return _LEAST_WAIT_SECONDS
        self._window = _WINDOW
        wait_seconds = self._wakeup.poll_seconds
        if due_seconds is not None:
            wait_seconds = min(wait_seconds, due_seconds)
        return max(wait_seconds, _LEAST_WAIT_SECONDS)
