"""Appending to an SQLite outbox: the kind of work.

One statement inserts all events that wait at one moment. The invariants: the events of one call are
stored in one transaction or not at all, and an idempotency key is in the same commit as its event,
so that two requests with one key can't both insert.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from service.errors import IdempotencyKeyReusedError
from service.observe.recorder import Recorder
from service.outbox.clock import Clock
from service.outbox.event import Event
from service.outbox.keys import IdempotencyKey, KeyUse, divide
from service.outbox.receipt import Receipt
from service.outbox.sqlite.key_uses import take_keys, uses_of
from service.outbox.sqlite.memory import Memory
from service.outbox.sqlite.new_rows import NewRow, insert, next_seq
from service.outbox.sqlite.picking import Picker
from service.outbox.sqlite.quota import StoredCounts


class Append(msgspec.Struct, frozen=True, gc=False):
    """Events of one owner on their way in, and the key of each.

    `express` is whether the owner has few rows in a full queue.
    """

    events: Sequence[Event]
    keys: Sequence[IdempotencyKey | None]
    trace: str | None = None
    express: bool = False

    @property
    def owner(self) -> str:
        """Whose events they are."""
        return self.events[0].owner

    @property
    def payload_bytes(self) -> int:
        """The size of all payloads."""
        return sum([len(event.payload) for event in self.events])


class SqliteAppends:
    """The kind of work that appends (see `WorkKind`)."""

    synced: ClassVar[bool] = True

    def __init__(
        self,
        counts: StoredCounts,
        picker: Picker,
        recorder: Recorder,
        memory: Memory,
        clock: Clock,
    ) -> None:
        self._counts = counts
        self._picker = picker
        self._recorder = recorder
        self._memory = memory
        self._clock = clock
        self._next_seq: int | None = None
        self.appended = 0

    def apply(self, connection: sqlite3.Connection, items: Sequence[Append]) -> Sequence[Any]:
        """Insert all; the receipts of each item, or IdempotencyKeyReusedError."""
        rows: list[NewRow] = []
        results: list[Any] = []
        expired: list[int] = []
        first_seq = self._next_seq or next_seq(connection)
        uses = _uses(connection, items)
        ids, now_ms = self._memory.known_ids(), self._clock.now_ms()
        for item in items:
            try:
                found = divide(
                    item.events,
                    item.keys,
                    uses=uses,
                    ids=ids,
                    next_seq=first_seq + len(rows),
                    now_ms=now_ms,
                )
            except IdempotencyKeyReusedError as error:
                results.append(error)
                continue
            uses.update(found.uses)
            expired += found.expired
            rows += [
                NewRow(item.events[at], item.keys[at], item.trace, item.express) for at in found.new
            ]
            results.append(found.receipts)
        if expired:
            take_keys(connection, expired)
        if rows:
            insert(connection, rows, first_seq)
            self._picker.may_have_express |= any(row.express for row in rows)
        self._next_seq = first_seq + len(rows)
        return results

    def committed(
        self, items: Sequence[Append], results: Sequence[Any], still_wanted: Sequence[bool]
    ) -> None:
        """Count what was accepted; give back the room of what was not inserted."""
        del still_wanted
        stored = 0
        for item, receipts in zip(items, results, strict=True):
            new = _new_events(item, receipts)
            stored += len(new)
            if len(new) < len(item.events):
                left = item.payload_bytes - sum(len(event.payload) for event in new)
                self._counts.undo(item.owner, len(item.events) - len(new), left)
        self.appended += stored
        self._recorder.count("accepted", stored)
        self._recorder.observe("group_events", sum(len(item.events) for item in items))

    def failed(self, items: Sequence[Append]) -> None:
        """Give all room back."""
        for item in items:
            self._counts.undo(item.owner, len(item.events), item.payload_bytes)


def _uses(connection: sqlite3.Connection, items: Sequence[Append]) -> dict[Any, KeyUse]:
    """The earlier uses of all keys."""
    keys = [key for item in items for key in item.keys]
    if not any(keys):
        return {}
    events = itertools.chain.from_iterable(item.events for item in items)
    return uses_of(connection, list(events), keys)


def _new_events(
    item: Append, receipts: Sequence[Receipt] | IdempotencyKeyReusedError
) -> Sequence[Event]:
    if isinstance(receipts, IdempotencyKeyReusedError):
        return ()
    pairs = zip(item.events, receipts, strict=True)
    return [event for event, receipt in pairs if not receipt.replayed]
