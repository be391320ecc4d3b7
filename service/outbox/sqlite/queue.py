"""The Queue of an SQLite outbox: what the relay claims and settles."""

from __future__ import annotations

import asyncio

from service.outbox.model import Batch, ClaimRequest, Settlement
from service.outbox.sqlite.claims import SqliteClaims
from service.outbox.sqlite.settlements import SqliteSettlements
from service.outbox.sqlite.throttle import ClaimThrottle
from service.outbox.sqlite.writer import SqliteWriter


class SqliteQueue:
    """Submits claims and settlements to the writer."""

    def __init__(
        self,
        writer: SqliteWriter,
        claims: SqliteClaims,
        settlements: SqliteSettlements,
        throttle: ClaimThrottle,
    ) -> None:
        self._writer = writer
        self._claims = claims
        self._settlements = settlements
        self._throttle = throttle

    async def claim(self, ask: ClaimRequest) -> Batch:
        """Wait until rows are due, then claim some: never empty."""
        if pause := self._throttle.pause_seconds(ask.max_events):
            await asyncio.sleep(pause)
        self._throttle.claims()
        future: asyncio.Future[Batch] = self._writer.submit(self._claims, ask)
        try:
            batch = await future
        except asyncio.CancelledError:
            # The batch may have arrived at the moment of the cancellation.
            if not future.cancelled() and not future.exception():
                self._claims.abandon(future.result())
                self._writer.wake()
            raise
        self._throttle.claimed(full=len(batch.entries) >= ask.max_events)
        return batch

    async def settle(self, settlement: Settlement) -> int:
        """Settle, atomically; returns how many rows were no longer under this claim."""
        return await self._writer.submit(self._settlements, settlement)
