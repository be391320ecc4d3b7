"""The Intake of an SQLite outbox: what requests append and look up."""

from __future__ import annotations

from service.errors import OutboxUnavailableError, RefusedError
from service.outbox.event import Event
from service.outbox.model import IdempotencyKey, Receipt, Row
from service.outbox.sqlite.appends import Append, SqliteAppends, used_receipt
from service.outbox.sqlite.health import SqliteHealth
from service.outbox.sqlite.quota import StoredCounts
from service.outbox.sqlite.reader import SqliteReader
from service.outbox.sqlite.rows import found_row
from service.outbox.sqlite.writer import SqliteWriter


class SqliteIntake:
    """Submits appends to the writer, unless there is no room or the file can't take them."""

    def __init__(
        self,
        writer: SqliteWriter,
        appends: SqliteAppends,
        counts: StoredCounts,
        reader: SqliteReader,
        health: SqliteHealth,
    ) -> None:
        self._writer = writer
        self._appends = appends
        self._counts = counts
        self._reader = reader
        self._health = health

    async def append(
        self, event: Event, *, key: IdempotencyKey | None = None, trace: str | None = None
    ) -> Receipt:
        """Make `event` durable, atomically with its key."""
        size = len(event.payload)
        try:
            self._counts.check(event.owner, size)
            self._health.refuse_if_failing()
        except (RefusedError, OutboxUnavailableError):
            if key and (first := await self._reader.run_soon(used_receipt, event.owner, key)):
                return first
            raise
        express = self._counts.is_express(event.owner)
        self._counts.entered(event.owner, size)
        return await self._writer.submit(self._appends, Append(event, key, trace, express))

    async def find(self, event_id: str) -> Row | None:
        """The row of an event, None when there is none."""
        return await self._reader.run_soon(found_row, event_id)
