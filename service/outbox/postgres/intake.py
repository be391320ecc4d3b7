"""Appends on PostgreSQL: all calls that wait at one moment share one statement and one sync.

A flush is one INSERT of many rows with their keys. It is atomic and safe to repeat, because the
event's id and the owner's key are unique. So when a connection is lost before the answer, the
statement is repeated and no event is stored twice. A call's future is resolved only after the
commit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Self

from service.errors import OutboxUnavailableError, RefusedError
from service.outbox.event import Event, check_call, payload_bytes
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import Division, IdempotencyKey, Keys, divide
from service.outbox.model import Row
from service.outbox.postgres.appends import Append, Appended
from service.outbox.postgres.flush import PostgresFlush, fail
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.quota import PostgresQuota
from service.outbox.postgres.row_reader import find_row
from service.outbox.postgres.stored import Stored, find_stored
from service.outbox.postgres.waiting import MAX_BYTES, MAX_EVENTS, WaitingAppends
from service.outbox.receipt import Receipt
from service.supervisor import Supervisor

_FLUSHES = 2
_CLOSE_SECONDS = 3.0
_LONGEST_SECONDS = 6.0


class PostgresIntake:
    """Takes events; an async context manager that flushes waiting events at its exit."""

    def __init__(
        self,
        pool: PostgresPool,
        flush: PostgresFlush,
        quota: PostgresQuota,
        supervisor: Supervisor,
        ids: Callable[[], InngestIds],
    ) -> None:
        self._supervisor = supervisor
        self._pool = pool
        self._ids = ids
        self._flush = flush
        self._quota = quota
        self._waiting = WaitingAppends()
        self._arrived = asyncio.Event()
        self._slots = asyncio.Semaphore(_FLUSHES)
        self._flushes: set[asyncio.Task[None]] = set()
        self._progress = asyncio.Event()
        self._accepting = False

    async def __aenter__(self) -> Self:
        await self._flush.warm_up(_FLUSHES)
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
        """Make `event` durable, atomically with its key, in one commit with other waiting events.

        Raises IdempotencyKeyReusedError, TooManyPendingError, OutboxFullError and
        OutboxUnavailableError.
        """
        [receipt] = await self.append_all((event,), (key,))
        return receipt

    async def append_all(self, events: Sequence[Event], keys: Keys) -> Sequence[Receipt]:
        """Make `events`, all of one owner, durable in one commit, each with its key; or none.

        Raises what `append` raises.
        """
        if not events:
            return ()
        check_call(events, keys)
        owner, reserved = events[0].owner, _held(events)
        if len(events) > 1 and any(keys):
            # Raises when two events have one key with different digests.
            self._divided(events, keys, Stored())
        try:
            await self._quota.admit(owner, *reserved)
        except RefusedError:
            known = await self._known(events, keys)
            if known is None:
                raise
            if not known.new:
                return known.receipts
            reserved = _held([events[at] for at in known.new])
            await self._quota.admit(owner, *reserved)
        stored, transaction = reserved, None
        try:
            appended = await self._enqueue(events, keys)
            receipts, transaction = appended.receipts, appended.transaction
            stored = _held(
                [one for one, got in zip(events, receipts, strict=True) if not got.replayed]
            )
        except (RefusedError, OutboxUnavailableError):
            stored = (0, 0)
            raise
        finally:
            self._quota.entered(owner, reserved, stored, transaction)
        return receipts

    def start(self, events: Sequence[Event], keys: Keys) -> asyncio.Future[Sequence[Receipt]]:
        """Begin to make `events` durable; the future gets the receipts or the error."""
        return asyncio.ensure_future(self.append_all(events, keys))

    async def find(self, event_id: str) -> Row | None:
        """The row of an event, None when there is none. Raises OutboxUnavailableError."""
        return await find_row(self._pool, event_id)

    async def _enqueue(self, events: Sequence[Event], keys: Keys) -> Appended:
        if not self._accepting:
            raise OutboxUnavailableError
        done: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        seconds = _patience_seconds(events, self._pool.timings.statement_seconds)
        deadline = time.monotonic() + seconds
        express = self._quota.is_express(events[0].owner)
        self._waiting.append(Append(events, keys, express, done, deadline))
        self._arrived.set()
        return await done

    async def _known(self, events: Sequence[Event], keys: Keys) -> Division | None:
        """The events divided by what is stored, None where none of them is."""
        if not any(keys):
            return None
        stored = await find_stored(self._pool, events, keys)
        return self._divided(events, keys, stored) if stored.uses else None

    def _divided(self, events: Sequence[Event], keys: Keys, stored: Stored) -> Division:
        return divide(
            events, keys, uses=stored.uses, ids=self._ids(), next_seq=0, now_ms=stored.now_ms
        )

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            await self._slots.acquire()
            batch = self._waiting.take()
            if not self._waiting:
                self._arrived.clear()
            flush = asyncio.create_task(self._flush.store(batch), name="outbox-flush")
            self._flushes.add(flush)
            flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flushes.discard(flush)
        self._slots.release()
        self._progress.set()


def _held(events: Sequence[Event]) -> tuple[int, int]:
    """How many events these are, and their bytes."""
    return len(events), payload_bytes(events)


def _patience_seconds(events: Sequence[Event], usual: float) -> float:
    """How long a call may wait; one that is larger than a statement's usual load, longer."""
    loads = max(1.0, len(events) / MAX_EVENTS, payload_bytes(events) / MAX_BYTES)
    return min(usual * loads, max(usual, _LONGEST_SECONDS))
