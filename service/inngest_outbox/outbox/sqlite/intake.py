"""The Intake of an SQLite outbox: what requests append and look up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from inngest_outbox.errors import OutboxUnavailableError, RefusedError
from inngest_outbox.outbox.clock import Clock
from inngest_outbox.outbox.event import Event, check_call, payload_bytes
from inngest_outbox.outbox.keys import Division, IdempotencyKey, Keys, Receipt, divide
from inngest_outbox.outbox.model import Row
from inngest_outbox.outbox.sqlite.appends import Append, uses_of
from inngest_outbox.outbox.sqlite.file.connection import SqliteReader
from inngest_outbox.outbox.sqlite.file.journalled import Journal
from inngest_outbox.outbox.sqlite.health import SqliteHealth
from inngest_outbox.outbox.sqlite.inspector import found_row
from inngest_outbox.outbox.sqlite.state import CachedState, StoredCounts
from inngest_outbox.outbox.sqlite.writer import SqliteWriter


class SqliteIntake:
    """Submits appends to the writer, unless the outbox is full or its file can't be written."""

    def __init__(
        self,
        writer: SqliteWriter,
        counts: StoredCounts,
        state: CachedState,
        clock: Clock,
        reader: SqliteReader,
        health: SqliteHealth,
        *,
        journal: Journal | None = None,
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._counts = counts
        self._state = state
        self._clock = clock
        self._reader = reader
        self._health = health

    async def append(self, event: Event, *, key: IdempotencyKey | None = None) -> Receipt:
        """Make `event` durable, atomically with its key."""
        [receipt] = await self.start((event,), (key,))
        return receipt

    async def append_all(self, events: Sequence[Event], keys: Keys) -> Sequence[Receipt]:
        """Make `events`, all of one owner, durable in one commit, each with its key; or none."""
        if not events:
            return ()
        check_call(events, keys)
        return await self.start(events, keys)

    def start(self, events: Sequence[Event], keys: Keys) -> asyncio.Future[Sequence[Receipt]]:
        """Begin to make `events` durable; the future gets the receipts or the error."""
        keys = keys if any(keys) else ()
        try:
            return self._submit(events, keys)
        except (RefusedError, OutboxUnavailableError):
            return asyncio.ensure_future(self._append_known(events, keys))

    async def find(self, event_id: str) -> Row | None:
        """The row of an event, None when there is none."""
        return await self._reader.run_soon(found_row, event_id)

    async def _append_known(self, events: Sequence[Event], keys: Keys) -> Sequence[Receipt]:
        """The same for events that were refused: what is stored of them needs no room.

        Raises again what refuses those that are new.
        """
        known = await self._known(events, keys)
        if known is None:
            return await self._submit(events, keys)
        if not known.new:
            if self._journal:
                await self._journal.put((), [receipt.seq for receipt in known.receipts]).done
            return known.receipts
        return await self._submit(events, keys, new=[events[at] for at in known.new])

    async def _known(self, events: Sequence[Event], keys: Keys) -> Division | None:
        """The events divided by what is stored, None where none of them is.

        None too before the log of a killed process is on the disk: its last rows may not be.
        """
        is_asked = any(keys) and self._state.is_on_disk
        uses = await self._reader.run_soon(uses_of, events, keys) if is_asked else {}
        if not uses:
            return None
        return divide(
            events,
            keys,
            uses=uses,
            ids=self._state.known_ids(),
            next_seq=0,
            now_ms=self._clock.earliest_ms(),
            is_aged=self._state.is_aged,
        )

    def _submit(
        self, events: Sequence[Event], keys: Keys, *, new: Sequence[Event] | None = None
    ) -> asyncio.Future[Sequence[Receipt]]:
        """Hand the events to the writer; `new` are those that need room, None for all.

        Raises what refuses them now.
        """
        owner, size = events[0].owner, payload_bytes(events)
        if new is None:
            self._counts.check(owner, len(events), size)
        else:
            self._counts.check(owner, len(new), payload_bytes(new))
        self._health.refuse_if_failing()
        fair_share = self._counts.enter(owner, len(events), size)
        return self._writer.append(Append(events, keys, fair_share))
