"""Appends on PostgreSQL: all calls that wait at one moment share one statement and one sync."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Self

from inngest_outbox.errors import OutboxUnavailableError, RefusedError
from inngest_outbox.outbox.event import Event, check_call, payload_bytes
from inngest_outbox.outbox.keys import Division, IdempotencyKey, Keys, Receipt
from inngest_outbox.outbox.limits import Usage
from inngest_outbox.outbox.postgres.appends import Append, PostgresAppends, fail
from inngest_outbox.outbox.postgres.database.pool import PostgresPool
from inngest_outbox.outbox.postgres.queue import Wakeup
from inngest_outbox.outbox.postgres.quota import PostgresQuota
from inngest_outbox.outbox.postgres.rows import PostgresRows
from inngest_outbox.supervisor import Supervisor

MAX_EVENTS = 1000
MAX_BYTES = 8 * 1024 * 1024
_FLUSHES = 2
_CLOSE_SECONDS = 3.0
_LONGEST_SECONDS = 6.0


class PostgresIntake:
    """Takes events; an async context manager that flushes waiting events at its exit."""

    def __init__(
        self,
        pool: PostgresPool,
        appends: PostgresAppends,
        quota: PostgresQuota,
        rows: PostgresRows,
        wakeup: Wakeup,
        supervisor: Supervisor,
    ) -> None:
        self._supervisor = supervisor
        self._pool = pool
        self._appends = appends
        self._quota = quota
        self.find = rows.find
        self._wakeup = wakeup
        self._waiting: deque[Append] = deque()
        self._arrived = asyncio.Event()
        self._slots = asyncio.Semaphore(_FLUSHES)
        self._flushes: set[asyncio.Task[None]] = set()
        self._progress = asyncio.Event()
        self._accepting = False

    async def __aenter__(self) -> Self:
        await self._appends.warm_up(_FLUSHES)
        self._accepting = True
        self._supervisor.watch("outbox-write", self._write)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._accepting = False
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                while self._waiting or self._flushes:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            fail(list(self._waiting))
        await self._supervisor.stop("outbox-write")

    async def append(self, event: Event, *, key: IdempotencyKey | None = None) -> Receipt:
        """As the port says, in one commit with other waiting events."""
        [receipt] = await self.append_all((event,), (key,))
        return receipt

    async def append_all(self, events: Sequence[Event], keys: Keys) -> Sequence[Receipt]:
        """As the port says."""
        if not events:
            return ()
        check_call(events, keys)
        owner, reserved = events[0].owner, usage_of(events)
        try:
            await self._quota.admit(owner, *reserved)
        except RefusedError:
            known = await self._known(events, keys)
            if known is None:
                raise
            if not known.new:
                return known.receipts
            reserved = usage_of([events[at] for at in known.new])
            await self._quota.admit(owner, *reserved)
        stored = (0, 0)
        try:
            receipts = await self._enqueue(events, keys)
            pairs = zip(events, receipts, strict=True)
            stored = usage_of([event for event, receipt in pairs if not receipt.replayed])
        except asyncio.CancelledError:
            stored = reserved  # it may be stored
            raise
        finally:
            self._quota.entered(owner, reserved, stored)
        return receipts

    def start(self, events: Sequence[Event], keys: Keys) -> asyncio.Future[Sequence[Receipt]]:
        """Begin to make `events` durable; the future gets the receipts or the error."""
        return asyncio.ensure_future(self.append_all(events, keys))

    async def _enqueue(self, events: Sequence[Event], keys: Keys) -> Sequence[Receipt]:
        if not self._accepting:
            raise OutboxUnavailableError
        done: asyncio.Future[Sequence[Receipt]] = asyncio.get_running_loop().create_future()
        seconds = _patience_seconds(events, self._pool.timings.statement_seconds)
        deadline = time.monotonic() + seconds
        fair_share = self._quota.has_fair_share(events[0].owner)
        self._waiting.append(Append(events, keys, fair_share, done, deadline))
        self._arrived.set()
        return await done

    async def _known(self, events: Sequence[Event], keys: Keys) -> Division | None:
        """The events divided by what is stored, None where none of them is."""
        if not any(keys):
            return None
        stored = await self._appends.find_stored(events, keys, by_id=False)
        if not stored.uses:
            return None
        await self._pool.run("SYNC", replicated=True)
        return self._appends.divided(events, keys, stored)

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            await self._slots.acquire()
            batch = self._take()
            if not self._waiting:
                self._arrived.clear()
            flush = asyncio.create_task(self._flush(batch), name="outbox-flush")
            self._flushes.add(flush)
            flush.add_done_callback(self._flushed)

    async def _flush(self, batch: Sequence[Append]) -> None:
        if batch:
            await self._appends.store(batch)
            self._wakeup.rows_are_due()

    def _take(self) -> list[Append]:
        """The calls for one statement, without cancelled ones; no call is divided."""
        batch: list[Append] = []
        rows = size = 0
        while self._waiting:
            item = self._waiting[0]
            if not item.done.done():
                rows += len(item.events)
                size += item.payload_bytes
                if batch and (rows > MAX_EVENTS or size > MAX_BYTES):
                    break
                batch.append(item)
            self._waiting.popleft()
        return batch

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flushes.discard(flush)
        self._slots.release()
        self._progress.set()


def usage_of(events: Sequence[Event]) -> Usage:
    """The number of these events, and their bytes."""
    return len(events), payload_bytes(events)


def _patience_seconds(events: Sequence[Event], usual: float) -> float:
    """The seconds that a call may wait; one larger than a statement's usual load, longer."""
    loads = max(1.0, len(events) / MAX_EVENTS, payload_bytes(events) / MAX_BYTES)
    return min(usual * loads, max(usual, _LONGEST_SECONDS))
