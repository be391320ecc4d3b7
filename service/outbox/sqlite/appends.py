"""Appending to an SQLite outbox: the kind of work.

One statement inserts all events that wait at one moment. The invariants: the events of one call are
stored in one transaction or not at all, and an idempotency key is in the same commit as its event,
so that two requests with one key can't both insert.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from service.errors import IdempotencyKeyReusedError
from service.observe.recorder import Recorder
from service.outbox.clock import Clock
from service.outbox.event import Event, by_environment, payload_bytes
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import Keys, KeyUse, divide
from service.outbox.receipt import Receipt
from service.outbox.sqlite.key_uses import take_keys, uses_of
from service.outbox.sqlite.memory import Memory
from service.outbox.sqlite.new_rows import NewRow, insert, next_seq
from service.outbox.sqlite.picking import Picker
from service.outbox.sqlite.quota import StoredCounts


class Append(msgspec.Struct, frozen=True, gc=False):
    """Events of one owner on their way in.

    `express` is whether the owner has few rows in a full queue.
    """

    events: Sequence[Event]
    keys: Keys
    express: bool = False


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
        first_seq = self._next_seq or next_seq(connection)
        keyed = [item for item in items if item.keys]
        plan = _Plan(
            first_seq,
            self._memory.known_ids(),
            _uses(connection, keyed) if keyed else {},
            self._clock.now_ms(),
        )
        results: list[Any] = [None] * len(items)
        for at in by_environment([item.events for item in items]):
            item = items[at]
            results[at] = plan.add_keyed(item) if item.keys else plan.add(item)
        if plan.expired:
            take_keys(connection, plan.expired)
        if plan.rows:
            insert(connection, plan.rows, first_seq)
            self._picker.may_have_express |= any(item.express for item in items)
        self._next_seq = first_seq + len(plan.rows)
        return results

    def committed(
        self, items: Sequence[Append], results: Sequence[Any], still_wanted: Sequence[bool]
    ) -> None:
        """Count what was accepted; give back the room of what was not inserted."""
        del still_wanted
        events = stored = 0
        for item, receipts in zip(items, results, strict=True):
            events += len(item.events)
            stored += self._count_keyed(item, receipts) if item.keys else len(item.events)
        self.appended += stored
        self._recorder.count("accepted", stored)
        self._recorder.observe("group_events", events)

    def failed(self, items: Sequence[Append]) -> None:
        """Give all room back."""
        for item in items:
            self._undo(item.events)

    def _count_keyed(
        self, item: Append, receipts: Sequence[Receipt] | IdempotencyKeyReusedError
    ) -> int:
        """How many events were stored; gives back the room of the others."""
        if isinstance(receipts, IdempotencyKeyReusedError):
            self._undo(item.events)
            return 0
        pairs = zip(item.events, receipts, strict=True)
        if old := [event for event, receipt in pairs if receipt.replayed]:
            self._undo(old)
        return len(item.events) - len(old)

    def _undo(self, events: Sequence[Event]) -> None:
        self._counts.undo(events[0].owner, len(events), payload_bytes(events))


def _uses(connection: sqlite3.Connection, keyed: Sequence[Append]) -> dict[tuple[str, str], KeyUse]:
    events = [event for item in keyed for event in item.events]
    return uses_of(connection, events, [key for item in keyed for key in item.keys])


class _Plan:
    """The rows of one transaction, and the keys that older rows lose to them."""

    def __init__(
        self, first_seq: int, ids: InngestIds, uses: dict[tuple[str, str], KeyUse], now_ms: int
    ) -> None:
        self._first_seq = first_seq
        self._ids = ids
        self._uses = uses
        self._now_ms = now_ms
        self.rows: list[NewRow] = []
        self.expired: list[int] = []

    def add(self, item: Append) -> Sequence[Receipt]:
        """Take in events without keys; their receipts."""
        seq, ids = self._first_seq + len(self.rows), self._ids
        self.rows += [NewRow(event, None, item.express) for event in item.events]
        return [
            Receipt(event.id, at, event.accepted_at_ms, ids, meta=event.meta)
            for at, event in enumerate(item.events, seq)
        ]

    def add_keyed(self, item: Append) -> Sequence[Receipt] | IdempotencyKeyReusedError:
        """Take in what is new of the events; the receipts of all, or the error of the whole."""
        try:
            found = divide(
                item.events,
                item.keys,
                uses=self._uses,
                ids=self._ids,
                next_seq=self._first_seq + len(self.rows),
                now_ms=self._now_ms,
            )
        except IdempotencyKeyReusedError as error:
            return error
        self._uses.update(found.uses)
        self.expired += found.expired
        self.rows += [NewRow(item.events[at], item.keys[at], item.express) for at in found.new]
        return found.receipts
