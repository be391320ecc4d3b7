"""Appends on PostgreSQL: all that wait at one moment share one statement and one sync.

A flush is one INSERT of many rows with their keys, atomic and safe to repeat (the event's id and
the user's key are unique), so a connection lost before the answer costs a second try, never a
second event. An event's future is resolved only after the statement's commit.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Self

import msgspec

from service.errors import (
    IdempotencyKeyReusedError,
    InvalidFieldError,
    OutboxUnavailableError,
    RefusedError,
    ServiceError,
)
from service.observe.recorder import Recorder
from service.outbox.event import Event
from service.outbox.model import IdempotencyKey, Receipt
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.pool import STATEMENT_SECONDS, PostgresPool
from service.outbox.postgres.quota import PostgresQuota
from service.supervisor import Supervisor

# Stores the rows that are new, synced whatever the database's default is; returns their ids.
APPEND = """
WITH given AS (
    SELECT * FROM unnest(
        %(ids)b::text[], %(names)b::text[], %(owners)b::text[], %(users)b::text[],
        %(accepted)b::bigint[], %(traces)b::text[], %(keys)b::text[], %(digests)b::bytea[],
        %(payloads)b::bytea[]
    ) AS g(event_id, name, owner, user_id, accepted_at_ms, trace, key, digest, payload)
), put AS (
    INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, trace, idempotency_key,
                        idempotency_digest, payload)
    SELECT event_id, name, owner, user_id, accepted_at_ms, trace, key, digest, payload FROM given
    ON CONFLICT DO NOTHING
    RETURNING seq, event_id, owner, octet_length(payload) AS payload_bytes
), ready AS (
    INSERT INTO outbox_ready (seq, owner, payload_bytes)
    SELECT seq, owner, payload_bytes FROM put
)
SELECT event_id FROM put, set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
         ELSE current_setting('synchronous_commit') END, true) AS synced
"""

# What is stored under these ids, or under these owners' keys.
FIND_STORED = """
SELECT event_id, owner, idempotency_key, idempotency_digest FROM outbox
WHERE event_id = ANY(%(ids)s::text[])
UNION
SELECT o.event_id, o.owner, o.idempotency_key, o.idempotency_digest
FROM unnest(%(owners)s::text[], %(keys)s::text[]) AS g(owner, key)
JOIN outbox o ON o.owner = g.owner AND o.idempotency_key = g.key
"""

_MAX_EVENTS = 1000
_MAX_BYTES = 8 * 1024 * 1024
_FLUSHES = 2
_CLOSE_SECONDS = 3.0


class _Item(msgspec.Struct, frozen=True, eq=False):
    event: Event
    key: IdempotencyKey | None
    trace: str | None
    done: asyncio.Future[Receipt]
    deadline: float


class PostgresIntake:
    """The `append` of the port; an async context manager that flushes what waits on its way out."""

    def __init__(
        self,
        pool: PostgresPool,
        wakeup: PostgresWakeup,
        quota: PostgresQuota,
        recorder: Recorder,
        supervisor: Supervisor,
    ) -> None:
        self._supervisor = supervisor
        self._pool = pool
        self._recorder = recorder
        self._wakeup = wakeup
        self._quota = quota
        self._waiting: deque[_Item] = deque()
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
            _fail(list(self._waiting))
        await self._supervisor.stop("outbox-write")

    async def append(
        self, event: Event, *, key: IdempotencyKey | None = None, trace: str | None = None
    ) -> Receipt:
        """See the port."""
        try:
            await self._quota.admit(event.owner)
        except RefusedError:
            first = await self._first(event, key) if key else None
            if first is None:
                raise
            return first
        stored = True
        try:
            receipt = await self._enqueue(event, key, trace)
            stored = not receipt.replayed
        except ServiceError:
            stored = False
            raise
        finally:
            self._quota.entered(event.owner, stored=stored)
        return receipt

    async def _enqueue(
        self, event: Event, key: IdempotencyKey | None, trace: str | None
    ) -> Receipt:
        if not self._accepting:
            raise OutboxUnavailableError
        done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        deadline = time.monotonic() + STATEMENT_SECONDS
        self._waiting.append(_Item(event, key, trace, done, deadline))
        self._arrived.set()
        return await done

    async def _first(self, event: Event, key: IdempotencyKey) -> Receipt | None:
        given = {"ids": [], "owners": [event.owner], "keys": [key.key]}
        for stored_id, _, _, digest in await self._pool.run(FIND_STORED, given):
            return _receipt(event, key, stored_id, digest)
        return None

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

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flushes.discard(flush)
        self._slots.release()
        self._progress.set()

    def _take(self) -> list[_Item]:
        """What waits, up to a flush; requests that were cancelled meanwhile are left out."""
        batch: list[_Item] = []
        size = 0
        while self._waiting and len(batch) < _MAX_EVENTS and size < _MAX_BYTES:
            item = self._waiting.popleft()
            if not item.done.done():
                batch.append(item)
                size += len(item.event.payload)
        # In one order in every process, so that two flushes never wait for each other's keys.
        batch.sort(key=lambda item: (item.event.owner, item.key.key) if item.key else ("", ""))
        return batch

    async def _flush(self, batch: list[_Item]) -> None:
        if not batch:
            return
        began = time.monotonic()
        try:
            receipts = await self._store(batch)
        except InvalidFieldError as exc:
            await self._isolate(batch, exc)
        except OutboxUnavailableError as exc:
            _fail(batch, exc)
        except BaseException:
            _fail(batch)
            raise
        else:
            _resolve(batch, receipts)
            self._wakeup.rows_are_due()
            stored = sum(isinstance(one, Receipt) and not one.replayed for one in receipts)
            self._recorder.count("accepted", stored)
            self._recorder.observe("group_events", len(batch))
            self._recorder.observe("commit_seconds", time.monotonic() - began)

    async def _isolate(self, batch: list[_Item], error: InvalidFieldError) -> None:
        """One event of the batch can't be stored, which one is not known: halve until it is."""
        half = len(batch) // 2
        if half:
            await self._flush(batch[:half])
            await self._flush(batch[half:])
        else:
            _resolve(batch, [error])

    async def _store(self, batch: list[_Item]) -> list[Receipt | ServiceError]:
        within_seconds = max(0.05, min(item.deadline for item in batch) - time.monotonic())
        rows = await self._pool.run(APPEND, _columns(batch), within_seconds=within_seconds)
        new = {row[0] for row in rows}
        if len(new) == len(batch):
            return [Receipt(item.event.id) for item in batch]
        return await self._look_up(batch, new)

    async def _look_up(self, batch: list[_Item], new: set[str]) -> list[Receipt | ServiceError]:
        old = [item for item in batch if item.event.id not in new]
        keyed = [(item.event.owner, item.key.key) for item in old if item.key]
        given = {
            "ids": [item.event.id for item in old],
            "owners": [owner for owner, _ in keyed],
            "keys": [key for _, key in keyed],
        }
        stored = await self._pool.run(FIND_STORED, given)
        by_key = {(owner, key): (found, digest) for found, owner, key, digest in stored if key}
        ids = new | {row[0] for row in stored}
        return [_answer(item, ids, by_key) for item in batch]


def _columns(batch: list[_Item]) -> dict[str, object]:
    events = [item.event for item in batch]
    return {
        "ids": [event.id for event in events],
        "names": [event.name for event in events],
        "owners": [event.owner for event in events],
        "users": [event.user_id for event in events],
        "accepted": [event.accepted_at_ms for event in events],
        "traces": [item.trace for item in batch],
        "keys": [item.key and item.key.key for item in batch],
        "digests": [item.key and item.key.digest for item in batch],
        "payloads": [event.payload for event in events],
    }


def _answer(
    item: _Item, ids: set[str], by_key: dict[tuple[str, str], tuple[str, bytes]]
) -> Receipt | ServiceError:
    found = by_key.get((item.event.owner, item.key.key)) if item.key else None
    if item.key and found:
        try:
            return _receipt(item.event, item.key, *found)
        except IdempotencyKeyReusedError as exc:
            return exc
    if item.event.id in ids:
        return Receipt(item.event.id)
    # The key's first row was removed between the two statements; the caller may try again.
    return OutboxUnavailableError(retry_after_seconds=1)


def _receipt(event: Event, key: IdempotencyKey, stored_id: str, digest: bytes) -> Receipt:
    if bytes(digest) != key.digest:
        raise IdempotencyKeyReusedError
    return Receipt(stored_id, replayed=stored_id != event.id)


def _resolve(batch: list[_Item], receipts: Sequence[Receipt | ServiceError]) -> None:
    for item, receipt in zip(batch, receipts, strict=True):
        if item.done.done():
            continue
        if isinstance(receipt, ServiceError):
            item.done.set_exception(receipt)
        else:
            item.done.set_result(receipt)


def _fail(batch: list[_Item], cause: Exception | None = None) -> None:
    for item in batch:
        if not item.done.done():
            error = OutboxUnavailableError()
            error.__cause__ = cause
            item.done.set_exception(error)
