"""The Intake of an SQLite outbox: what requests append and look up."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import OutboxUnavailableError, RefusedError
from service.outbox.event import Event, owner_of
from service.outbox.keys import IdempotencyKey
from service.outbox.model import Row
from service.outbox.receipt import Receipt
from service.outbox.sqlite.appends import Append, SqliteAppends
from service.outbox.sqlite.health import SqliteHealth
from service.outbox.sqlite.key_uses import EarlierUses
from service.outbox.sqlite.quota import StoredCounts
from service.outbox.sqlite.reader import SqliteReader
from service.outbox.sqlite.rows import found_row
from service.outbox.sqlite.writer import SqliteWriter


class SqliteIntake:
    """Submits appends to the writer, unless the outbox is full or its file can't be written."""

    def __init__(
        self,
        writer: SqliteWriter,
        appends: SqliteAppends,
        counts: StoredCounts,
        uses: EarlierUses,
        reader: SqliteReader,
        health: SqliteHealth,
    ) -> None:
        self._writer = writer
        self._appends = appends
        self._counts = counts
        self._reader = reader
        self._uses = uses
        self._health = health

    async def append(
        self, event: Event, *, key: IdempotencyKey | None = None, trace: str | None = None
    ) -> Receipt:
        """Make `event` durable, atomically with its key."""
        [receipt] = await self.append_all((event,), (key,), trace=trace)
        return receipt

    async def append_all(
        self,
        events: Sequence[Event],
        keys: Sequence[IdempotencyKey | None],
        *,
        trace: str | None = None,
    ) -> Sequence[Receipt]:
        """Make `events`, all of one owner, durable in one commit, each with its key; or none."""
        if not events:
            return ()
        owner = owner_of(events)
        size = sum([len(event.payload) for event in events])
        try:
            self._check(owner, events)
        except (RefusedError, OutboxUnavailableError):
            known = await self._uses.known(events, keys)
            if known is None:
                raise
            if not known.new:
                return known.receipts
            self._check(owner, [events[at] for at in known.new])
        express = self._counts.is_express(owner)
        self._counts.entered(owner, len(events), size)
        append = Append(events, keys, trace, express)
        return await self._writer.submit(self._appends, append)

    async def find(self, event_id: str) -> Row | None:
        """The row of an event, None when there is none."""
        return await self._reader.run_soon(found_row, event_id)

    def _check(self, owner: str, events: Sequence[Event]) -> None:
        """Raise what refuses these events now."""
        size = sum([len(event.payload) for event in events])
        self._counts.check(owner, len(events), size)
        self._health.refuse_if_failing()
