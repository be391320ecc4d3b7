"""Storing a batch of appends: one statement, one sync, and an answer for each caller."""

from __future__ import annotations

import time

from service.errors import InvalidFieldError, OutboxUnavailableError, ServiceError
from service.observe.recorder import Recorder
from service.outbox.model import Receipt
from service.outbox.postgres.appends import (
    APPEND,
    FIND_STORED,
    Append,
    answer,
    columns,
    fail,
    resolve,
)
from service.outbox.postgres.express import ExpressRows
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.pool import PostgresPool


class PostgresFlush:
    """Stores batches. A future is resolved only after the commit that holds its event."""

    def __init__(
        self,
        pool: PostgresPool,
        wakeup: PostgresWakeup,
        express: ExpressRows,
        recorder: Recorder,
    ) -> None:
        self._pool = pool
        self._express = express
        self._wakeup = wakeup
        self._recorder = recorder

    async def store(self, batch: list[Append]) -> None:
        """Store the batch and answer all its callers; raises only what is no fault of the store."""
        if not batch:
            return
        began = time.monotonic()
        try:
            receipts = await self._store(batch)
        except InvalidFieldError as exc:
            await self._isolate(batch, exc)
        except OutboxUnavailableError as exc:
            fail(batch, exc)
        except BaseException:
            fail(batch)
            raise
        else:
            if any(item.express for item in batch):
                self._express.stored()
            resolve(batch, receipts)
            self._wakeup.rows_are_due()
            stored = sum(isinstance(one, Receipt) and not one.replayed for one in receipts)
            self._recorder.count("accepted", stored)
            self._recorder.observe("group_events", len(batch))
            self._recorder.observe("commit_seconds", time.monotonic() - began)

    async def _isolate(self, batch: list[Append], error: InvalidFieldError) -> None:
        """One event of the batch can't be stored: halve the batch until it is found."""
        half = len(batch) // 2
        if half:
            await self.store(batch[:half])
            await self.store(batch[half:])
        else:
            resolve(batch, [error])

    async def _store(self, batch: list[Append]) -> list[Receipt | ServiceError]:
        within_seconds = max(0.05, min(item.deadline for item in batch) - time.monotonic())
        rows = await self._pool.run(
            APPEND, columns(batch), within_seconds=within_seconds, replicated=True
        )
        new = {row[0] for row in rows}
        if len(new) == len(batch):
            return [Receipt(item.event.id) for item in batch]
        return await self._look_up(batch, new)

    async def _look_up(self, batch: list[Append], new: set[str]) -> list[Receipt | ServiceError]:
        old = [item for item in batch if item.event.id not in new]
        keyed = [(item.event.owner, item.key.key) for item in old if item.key]
        given = {
            "ids": [item.event.id for item in old],
            "owners": [owner for owner, _ in keyed],
            "keys": [key for _, key in keyed],
        }
        stored = await self._pool.run(FIND_STORED, given, replicated=True)
        by_key = {(owner, key): (found, digest) for found, owner, key, digest in stored if key}
        ids = new | {row[0] for row in stored}
        return [answer(item, ids, by_key) for item in batch]
