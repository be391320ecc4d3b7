"""Claims and settles on PostgreSQL, each one statement.

A claim deletes its rows from `outbox_ready` and keeps them in one row of `outbox_claims`, so a row
is never in both; whoever holds the claim's row lock decides where its rows go next. Leases and due
times are read from the database's clock only. A claim whose answer was lost is given back as soon
as the database answers again, and by its lease at the latest.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import Any, Self

from service.errors import OutboxUnavailableError
from service.outbox.model import Batch, ClaimRequest, Entry, Isolated, Settlement
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.statements import CLAIM, FLOOR, GIVE_BACK, NEXT_DUE, SETTLE
from service.outbox.storable import storable

_GIVE_BACK_EVERY_SECONDS = 1.0
_FLOOR_EVERY_SECONDS = 1.0
_FLOOR_COST_FACTOR = 10
_CLAIM_SECONDS = 5.0
_SETTLE_SECONDS = 5.0
_LEAST_WAIT_SECONDS = 0.005


class PostgresQueue:
    """`claim` and `settle` of the port; an async context manager.

    On its way out it gives back what this process still holds.
    """

    def __init__(self, pool: PostgresPool, wakeup: PostgresWakeup) -> None:
        self._pool = pool
        self._wakeup = wakeup
        self._holder = uuid.uuid4().hex
        self._claiming = asyncio.Lock()
        self._orphans: set[str] = set()
        self._floor = 0
        self._floor_at = 0.0
        self._give_back_at = 0.0
        self._old_rows = 0
        self._attempts: set[asyncio.Task[Batch | float]] = set()
        self._releases: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._attempts, *self._releases, return_exceptions=True)
        with contextlib.suppress(OutboxUnavailableError):
            await self._give_back(holder=self._holder, sent=True)

    async def claim(self, ask: ClaimRequest) -> Batch:
        """See the port."""
        while True:
            generation = self._wakeup.generation
            self._wakeup.claims_here()
            found = await self._claim_uncancelled(ask)
            if isinstance(found, Batch):
                return found
            await self._wakeup.wait(generation, found)

    async def settle(self, settlement: Settlement) -> int:
        """See the port."""
        rows = await self._pool.run(
            SETTLE, _settle_columns(settlement), within_seconds=_SETTLE_SECONDS
        )
        stale, due_now = rows[0]
        if due_now:
            self._wakeup.rows_are_due(old=True)
        return int(stale)

    async def _claim_uncancelled(self, ask: ClaimRequest) -> Batch | float:
        """One attempt; cancelled, its rows are given back when its answer comes.

        The pool's own waits may lose a cancellation, so none reaches them.
        """
        attempt = asyncio.create_task(self._attempt(ask), name="outbox-claim")
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
            self._orphans.add(found.claim)
            release = asyncio.create_task(self._release_orphans(), name="outbox-release")
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)

    async def _attempt(self, ask: ClaimRequest) -> Batch | float:
        """A batch, or how many seconds to wait for one."""
        async with self._claiming:
            await self._look_after_leases()
            await self._raise_floor()
            claim = f"{self._holder}:{uuid.uuid4().hex}"
            try:
                # Repeated, it could find nothing because it had taken everything before.
                rows = await self._pool.run(
                    CLAIM,
                    _claim_values(ask, claim, self._floor),
                    within_seconds=_CLAIM_SECONDS,
                    repeatable=False,
                )
            except OutboxUnavailableError:
                self._orphans.add(claim)
                raise
        if not rows:
            return await self._wait_seconds(ask)
        entries = tuple(Entry(*row[:-1]) for row in rows)
        return Batch(claim, entries, b",".join([row[-1] for row in rows]))

    async def _look_after_leases(self) -> None:
        await self._release_orphans()
        if time.monotonic() >= self._give_back_at:
            self._give_back_at = time.monotonic() + _GIVE_BACK_EVERY_SECONDS
            await self._give_back(expired=True, sent=True)

    async def _release_orphans(self) -> None:
        """Give back claims that nobody in this process holds; nothing of them was sent."""
        if self._orphans:
            orphans = list(self._orphans)
            await self._give_back(claims=orphans)
            self._orphans.difference_update(orphans)

    async def _give_back(
        self,
        *,
        claims: list[str] | None = None,
        holder: str | None = None,
        expired: bool = False,
        sent: bool = False,
    ) -> None:
        """Make claimed rows due; `sent` says that their bytes may have left."""
        given = {"claims": claims or [], "holder": holder, "expired": expired, "sent": sent}
        rows = await self._pool.run(GIVE_BACK, given)
        if rows[0][0]:
            self._wakeup.rows_are_due(old=True)

    async def _raise_floor(self) -> None:
        """Remember where the live rows begin.

        Each claim would otherwise step over all rows deleted since the oldest open transaction of
        the whole database began. A row that commits late below the floor waits for the next look.
        """
        old_rows = self._wakeup.old_rows
        if time.monotonic() >= self._floor_at or old_rows != self._old_rows:
            began = time.monotonic()
            rows = await self._pool.run(FLOOR)
            self._floor, self._old_rows = int(rows[0][0]), old_rows
            cost_seconds = time.monotonic() - began
            self._floor_at = began + max(_FLOOR_EVERY_SECONDS, cost_seconds * _FLOOR_COST_FACTOR)

    async def _wait_seconds(self, ask: ClaimRequest) -> float:
        """Until the next row is due by the database's clock, at most a poll."""
        given = {"isolated": ask.isolated is not Isolated.NONE}
        rows = await self._pool.run(NEXT_DUE, given)
        due_seconds, lease_seconds = rows[0]
        wait_seconds = self._wakeup.poll_seconds
        if lease_seconds is not None:
            self._give_back_at = min(self._give_back_at, time.monotonic() + lease_seconds)
            wait_seconds = min(wait_seconds, lease_seconds)
        if due_seconds is not None:
            wait_seconds = min(wait_seconds, due_seconds)
        return max(wait_seconds, _LEAST_WAIT_SECONDS)


def _claim_values(ask: ClaimRequest, claim: str, floor: int) -> dict[str, object]:
    newest = min(ask.max_events, int(ask.max_events * ask.fresh_share))
    return {
        "claim": claim,
        "lease_seconds": ask.lease_seconds,
        "suspects": ask.isolated.value,
        "oldest": ask.max_events - newest,
        "newest": newest,
        "oldest_bytes": int(ask.max_bytes * (1 - ask.fresh_share)),
        "newest_bytes": int(ask.max_bytes * ask.fresh_share),
        "floor": floor,
    }


def _settle_columns(settlement: Settlement) -> dict[str, Any]:
    return {
        "claim": settlement.claim,
        "delivered": list(settlement.delivered),
        "again": [retry.seq for retry in settlement.retry],
        "again_delays": [float(retry.delay_seconds) for retry in settlement.retry],
        "again_attempts": [retry.attempts for retry in settlement.retry],
        "again_alone": [retry.isolated for retry in settlement.retry],
        "again_notes": [retry.note and storable(retry.note) for retry in settlement.retry],
        "dead": [dead.seq for dead in settlement.dead],
        "dead_attempts": [dead.attempts for dead in settlement.dead],
        "dead_reasons": [storable(dead.reason) for dead in settlement.dead],
        "dead_details": [storable(dead.detail) for dead in settlement.dead],
    }
