"""Appends on PostgreSQL: all that wait at one moment share one statement and one sync.

A flush is one INSERT of many rows with their keys. It is atomic and safe to repeat, because the
event's id and the owner's key are unique. So a connection that is lost before the answer costs a
second try, never a second event. An event's future is resolved only after the commit.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Self

from service.errors import (
    OutboxUnavailableError,
    RefusedError,
    ServiceError,
)
from service.observe.recorder import Recorder
from service.outbox.event import Event
from service.outbox.model import IdempotencyKey, Receipt, Row
from service.outbox.postgres.appends import (
    FIND_STORED,
    Append,
    fail,
    receipt,
)
from service.outbox.postgres.express import ExpressRows
from service.outbox.postgres.flush import PostgresFlush
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.pool import STATEMENT_SECONDS, PostgresPool
from service.outbox.postgres.quota import PostgresQuota
from service.outbox.postgres.rows import find_row
from service.supervisor import Supervisor

_MAX_EVENTS = 1000
_MAX_BYTES = 8 * 1024 * 1024
_FLUSHES = 2
_CLOSE_SECONDS = 3.0


class PostgresIntake:
    """Takes events; an async context manager that flushes waiting events at its exit."""

    def __init__(
        self,
        pool: PostgresPool,
        wakeup: PostgresWakeup,
        quota: PostgresQuota,
        express: ExpressRows,
        recorder: Recorder,
        supervisor: Supervisor,
    ) -> None:
        self._supervisor = supervisor
        self._pool = pool
        self._flush = PostgresFlush(pool, wakeup, express, recorder)
        self._quota = quota
        self._waiting: deque[Append] = deque()
        self._arrived = asyncio.Event()
        self._slots = asyncio.Semaphore(_FLUSHES)
        self._flushes: set[asyncio.Task[None]] = set()
        self._progress = asyncio.Event()
        self._accepting = False

    async def __aenter__(self) -> Self:
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

    async def append(
        self, event: Event, *, key: IdempotencyKey | None = None, trace: str | None = None
    ) -> Receipt:
        """Make `event` durable, atomically with its key, in one commit with other waiting events.

        Raises IdempotencyKeyReusedError, TooManyPendingError, OutboxFullError and
        OutboxUnavailableError.
        """
        try:
            await self._quota.admit(event.owner, len(event.payload))
        except RefusedError:
            first = await self._first(event, key) if key else None
            if first is None:
                raise
            return first
        stored = True
        try:
            answered = await self._enqueue(event, key, trace)
            stored = not answered.replayed
        except ServiceError:
            stored = False
            raise
        finally:
            self._quota.entered(event.owner, len(event.payload), stored=stored)
        return answered

    async def find(self, event_id: str) -> Row | None:
        """The row of an event, None when there is none. Raises OutboxUnavailableError."""
        return await find_row(self._pool, event_id)

    async def _enqueue(
        self, event: Event, key: IdempotencyKey | None, trace: str | None
    ) -> Receipt:
        if not self._accepting:
            raise OutboxUnavailableError
        done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        deadline = time.monotonic() + STATEMENT_SECONDS
        express = self._quota.is_express(event.owner)
        self._waiting.append(Append(event, key, trace, express, done, deadline))
        self._arrived.set()
        return await done

    async def _first(self, event: Event, key: IdempotencyKey) -> Receipt | None:
        given = {"ids": [], "owners": [event.owner], "keys": [key.key]}
        for stored_id, _, _, digest in await self._pool.run(FIND_STORED, given, replicated=True):
            return receipt(event, key, stored_id, digest)
        return None

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            await self._slots.acquire()
            batch = self._take()
            if not self._waiting:
                self._arrived.clear()
            flush = asyncio.create_task(self._flush.store(batch), name="outbox-flush")
            self._flushes.add(flush)
            flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flushes.discard(flush)
        self._slots.release()
        self._progress.set()

    def _take(self) -> list[Append]:
        """The waiting events for one flush, without those of cancelled requests."""
        batch: list[Append] = []
        size = 0
        while self._waiting and len(batch) < _MAX_EVENTS and size < _MAX_BYTES:
            item = self._waiting.popleft()
            if not item.done.done():
                batch.append(item)
                size += len(item.event.payload)
        # Every process uses this order, so that two flushes never wait for each other's keys.
        batch.sort(key=lambda item: (item.event.owner, item.key.key) if item.key else ("", ""))
        return batch
