"""Storing a batch of appends: one statement, one sync, and an answer for each caller."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from service.errors import InvalidFieldError, OutboxUnavailableError, ServiceError
from service.observe.recorder import Recorder
from service.outbox.inngest_id import InngestIds
from service.outbox.postgres.appends import APPEND, Append, Appended, columns
from service.outbox.postgres.express import ExpressRows
from service.outbox.postgres.notify import PostgresWakeup
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.stored import Stored, find_stored, receipts_of

Answer = Appended | ServiceError


class PostgresFlush:
    """Stores batches. A future is resolved only after the commit that holds its events."""

    def __init__(
        self,
        pool: PostgresPool,
        wakeup: PostgresWakeup,
        express: ExpressRows,
        recorder: Recorder,
        ids: Callable[[], InngestIds],
    ) -> None:
        self._pool = pool
        self._express = express
        self._wakeup = wakeup
        self._recorder = recorder
        self._ids = ids

    async def warm_up(self, flushes: int) -> None:
        """Connect and plan for so many flushes at once, so that the first calls wait for neither.

        A database that does not answer now is no error.
        """
        await asyncio.gather(*(self._store_nothing() for _ in range(flushes)))

    async def _store_nothing(self) -> None:
        with contextlib.suppress(OutboxUnavailableError):
            seconds = self._pool.timings.ask_seconds
            await self._pool.run(APPEND, columns(()), within_seconds=seconds)

    async def store(self, batch: Sequence[Append]) -> None:
        """Store the batch and answer all its callers. Raises only errors that are bugs."""
        if not batch:
            return
        began = time.monotonic()
        try:
            answers = await self._store(batch)
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
            _resolve(batch, answers)
            self._wakeup.rows_are_due()
            self._recorder.count("accepted", sum(map(_count_new, answers)))
            self._recorder.observe("group_events", sum(len(item.events) for item in batch))
            self._recorder.observe("commit_seconds", time.monotonic() - began)

    async def _isolate(self, batch: Sequence[Append], error: InvalidFieldError) -> None:
        """One call of the batch can't be stored: halve the batch until it is found."""
        half = len(batch) // 2
        if half:
            await self.store(batch[:half])
            await self.store(batch[half:])
        else:
            _resolve(batch, [error])

    async def _store(self, batch: Sequence[Append]) -> Sequence[Answer]:
        within_seconds = max(0.05, min(item.deadline for item in batch) - time.monotonic())
        rows = await self._pool.run(
            APPEND,
            columns(batch),
            within_seconds=within_seconds,
            repeat_with={"repeated": True},
            replicated=True,
        )
        new = {event_id: seq for event_id, seq, _ in rows}
        transaction = rows[0][-1] if rows else None
        stored = await self._stored_before(batch, new)
        ids = self._ids()
        found = (receipts_of(item, new, stored, ids) for item in batch)
        return [
            one if isinstance(one, ServiceError) else Appended(one, transaction) for one in found
        ]

    async def _stored_before(self, batch: Sequence[Append], new: dict[str, int]) -> Stored:
        if len(new) == sum(len(item.events) for item in batch):
            return Stored()
        pairs = [
            (event, key)
            for item in batch
            for event, key in zip(item.events, item.keys, strict=True)
            if event.id not in new
        ]
        return await find_stored(self._pool, [one for one, _ in pairs], [key for _, key in pairs])


def fail(batch: Sequence[Append], cause: Exception | None = None) -> None:
    """Fail each call with OutboxUnavailableError."""
    for item in batch:
        if not item.done.done():
            error = OutboxUnavailableError()
            error.__cause__ = cause
            item.done.set_exception(error)


def _resolve(batch: Sequence[Append], answers: Sequence[Answer]) -> None:
    """Give each caller its result or its error."""
    for item, answer in zip(batch, answers, strict=True):
        if item.done.done():
            continue
        if isinstance(answer, ServiceError):
            item.done.set_exception(answer)
        else:
            item.done.set_result(answer)


def _count_new(answer: Answer) -> int:
    if isinstance(answer, ServiceError):
        return 0
    return sum(not receipt.replayed for receipt in answer.receipts)
