"""Appending to an SQLite outbox.

One statement inserts many events in one step of SQLite: executemany would hand the interpreter lock
back and forth for each row. The rare columns are left out where no row has a value for one: binding
None costs more than binding a number. The invariants: the events of one call are stored in one
transaction or not at all, and an idempotency key is in the same commit as its event, so that two
requests with one key can't both insert.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from inngest_outbox.errors import IdempotencyKeyReusedError
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.clock import Clock
from inngest_outbox.outbox.event import (
    NO_META,
    Event,
    by_environment,
    decode_meta,
    encode_meta,
    payload_bytes,
)
from inngest_outbox.outbox.event_ids import USED_MS, IdUses, ids_to_look_for, named_apart
from inngest_outbox.outbox.keys import IdempotencyKey, Keys, KeyUse, Receipt, divide
from inngest_outbox.outbox.sqlite.claims import Picker
from inngest_outbox.outbox.sqlite.file.connection import SQL
from inngest_outbox.outbox.sqlite.file.journalled import Journal, JournalRow, Put
from inngest_outbox.outbox.sqlite.state import CachedState, StoredCounts

_MAX_ROWS = 256  # of one statement; SQLite binds at most 32,766 values
_COLUMNS = ("seq", "event_id", "name", "owner", "user_id", "accepted_at_ms", "payload")
_RARE_COLUMNS = ("meta", "idempotency_key", "idempotency_digest")

_encode = msgspec.json.Encoder().encode


class Append(msgspec.Struct, frozen=True, gc=False):
    """Events of one owner on their way in.

    `fair_share` says that the owner has few rows in a queue that a noisy owner fills.
    """

    events: Sequence[Event]
    keys: Keys
    fair_share: bool = False


class _NewRow(msgspec.Struct, frozen=True, gc=False):
    event: Event
    key: IdempotencyKey | None
    fair_share: bool


class SqliteAppends:
    """Stores the appends of a transaction."""

    def __init__(
        self,
        counts: StoredCounts,
        picker: Picker,
        recorder: Recorder,
        state: CachedState,
        clock: Clock,
        shared_ids: Collection[str] = (),
        *,
        journalled: bool = False,
    ) -> None:
        self._journalled = journalled
        self._shared_ids = shared_ids
        self._counts = counts
        self._picker = picker
        self._recorder = recorder
        self._state = state
        self._clock = clock
        self._next_seq: int | None = None
        self._stored: tuple[int, Sequence[_NewRow]] = (0, ())
        self.appended = 0

    def apply(self, connection: sqlite3.Connection, items: Sequence[Append]) -> Sequence[Any]:
        """Insert all; the receipts of each item, or IdempotencyKeyReusedError."""
        plan = _Plan(self._next_seq or next_seq(connection), self._state, self._clock.earliest_ms())
        keyed = [item for item in items if item.keys]
        if keyed:
            events = [event for item in keyed for event in item.events]
            plan.uses = uses_of(connection, events, [key for item in keyed for key in item.keys])
        results: list[Any] = [None] * len(items)
        for at in by_environment([item.events for item in items]):
            item = items[at]
            results[at] = plan.add_keyed(item) if item.keys else plan.add(item)
        if plan.expired:
            seqs = _encode(plan.expired).decode()
            connection.execute(SQL["TAKE_KEYS"], {"seqs": seqs})
        if plan.rows:
            self._name_apart(connection, plan)
            _insert(connection, plan.rows, plan.first_seq)
            self._picker.may_have_fair_share |= bool([item for item in items if item.fair_share])
        self._next_seq = plan.first_seq + len(plan.rows)
        if self._journalled:
            self._stored = plan.first_seq, plan.rows
        return results

    def put(self, journal: Journal, results: Sequence[Any]) -> Put | None:
        """Begin to put what `apply` stored last into the journal; None for nothing."""
        first_seq, rows = self._stored
        repeats = [
            receipt.seq
            for receipts in results
            if not isinstance(receipts, IdempotencyKeyReusedError)
            for receipt in receipts
            if receipt.replayed and receipt.seq < first_seq
        ]
        if not rows and not repeats:
            return None
        return journal.put([_journal_row(*one) for one in enumerate(rows, first_seq)], repeats)

    def take(self, connection: sqlite3.Connection, count: int) -> int:
        """The first of `count` numbers that no other row gets; in a transaction."""
        first = self._next_seq or next_seq(connection)
        self._next_seq = first + count
        return first

    def _name_apart(self, connection: sqlite3.Connection, plan: _Plan) -> None:
        """Give events ids of their own where another owner uses theirs."""
        chosen = [row.event for row in plan.rows if row.event.meta.wire_id]
        if not chosen:
            return
        events = [row.event for row in plan.rows]
        wire_ids = ids_to_look_for(chosen)
        given = {"ids": _encode(wire_ids).decode(), "since": self._clock.earliest_ms() - USED_MS}
        uses: IdUses = {}
        for environment, wire_id, owner in connection.execute(SQL["WIRE_IDS_USED"], given):
            uses.setdefault((environment, wire_id), set()).add(owner)
        named = named_apart(events, uses, self._shared_ids)
        plan.rows = [
            msgspec.structs.replace(row, event=event)
            for row, event in zip(plan.rows, named, strict=True)
        ]

    def committed(self, items: Sequence[Append], results: Sequence[Any]) -> None:
        """Count what was accepted; give back the room of what was not inserted."""
        events = stored = 0
        for item, receipts in zip(items, results, strict=True):
            events += len(item.events)
            stored += self._count_keyed(item, receipts) if item.keys else len(item.events)
        self.appended += stored
        self._recorder.count("accepted", stored)
        self._recorder.observe("group_events", events)

    def failed(self, items: Sequence[Append]) -> None:
        """Give all room back: none of the items has left a trace."""
        for item in items:
            self._undo(item.events)

    def _count_keyed(
        self, item: Append, receipts: Sequence[Receipt] | IdempotencyKeyReusedError
    ) -> int:
        """The number of events that were stored; gives back the room of the others."""
        if isinstance(receipts, IdempotencyKeyReusedError):
            self._undo(item.events)
            return 0
        pairs = zip(item.events, receipts, strict=True)
        if old := [event for event, receipt in pairs if receipt.replayed]:
            self._undo(old)
        return len(item.events) - len(old)

    def _undo(self, events: Sequence[Event]) -> None:
        self._counts.undo(events[0].owner, len(events), payload_bytes(events))


class _Plan:
    """The rows of one transaction, and the keys that older rows lose to them."""

    def __init__(self, first_seq: int, state: CachedState, now_ms: int) -> None:
        self.first_seq = first_seq
        self._state = state
        self._ids = state.known_ids()
        self._newest = self._ids.of(first_seq)
        self._now_ms = now_ms
        self.uses: dict[tuple[str, str], KeyUse] = {}
        self.rows: list[_NewRow] = []
        self.expired: list[int] = []

    def add(self, item: Append) -> Sequence[Receipt]:
        """Take in events without keys; their receipts."""
        seq, ids = self.first_seq + len(self.rows), self._newest
        self.rows += [_NewRow(event, None, item.fair_share) for event in item.events]
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
                uses=self.uses,
                ids=self._ids,
                next_seq=self.first_seq + len(self.rows),
                now_ms=self._now_ms,
                is_aged=self._state.is_aged,
            )
        except IdempotencyKeyReusedError as error:
            return error
        self.uses.update(found.uses)
        self.expired += found.expired
        self.rows += [_NewRow(item.events[at], item.keys[at], item.fair_share) for at in found.new]
        return found.receipts


def next_seq(connection: sqlite3.Connection) -> int:
    """The seq that the next row gets."""
    [(seq,)] = connection.execute(SQL["NEXT_SEQ"]).fetchall()
    return int(seq)


def uses_of(
    connection: sqlite3.Connection, events: Sequence[Event], keys: Keys
) -> dict[tuple[str, str], KeyUse]:
    """The earlier uses of the keys of `events`."""
    pairs = [(event.owner, key.key) for event, key in zip(events, keys, strict=True) if key]
    found = connection.execute(SQL["KEYS_USED"], {"pairs": _encode(pairs).decode()}).fetchall()
    return {
        (owner, key): KeyUse(
            event_id, seq, accepted_at_ms, bytes.fromhex(digest), decode_meta(meta)
        )
        for owner, key, event_id, seq, accepted_at_ms, digest, meta in found
    }


def _journal_row(seq: int, row: _NewRow) -> JournalRow:
    event, key = row.event, row.key
    return JournalRow(
        seq,
        event.id,
        event.name,
        event.owner,
        event.user_id,
        event.accepted_at_ms,
        event.payload,
        encode_meta(event.meta),
        key.key if key else None,
        key.digest.hex() if key else None,
    )


def _insert(connection: sqlite3.Connection, rows: Sequence[_NewRow], first_seq: int) -> None:
    """Insert the rows under consecutive seqs, and make them pending."""
    for start in range(0, len(rows), _MAX_ROWS):
        part = rows[start : start + _MAX_ROWS]
        is_rare = bool([row for row in part if row.key or row.event.meta is not NO_META])
        values = _values(part, first_seq + start, is_rare=is_rare)
        connection.execute(append_rows(len(part), is_rare=is_rare), values)
    if [row for row in rows if row.fair_share or row.event.meta.due_at_ms]:
        marks = [
            (len(row.event.payload), row.event.meta.due_at_ms, int(row.fair_share)) for row in rows
        ]
        values_of_marks = {"marks": _encode(marks).decode(), "first": first_seq}
        connection.execute(SQL["APPEND_READY_MARKED"], values_of_marks)
    else:
        sizes = _encode([len(row.event.payload) for row in rows]).decode()
        connection.execute(SQL["APPEND_READY"], {"sizes": sizes, "first": first_seq})


@functools.cache
def append_rows(count: int, *, is_rare: bool) -> str:
    """The statement that inserts so many rows, with the rare columns where one has a value."""
    columns = (*_COLUMNS, *_RARE_COLUMNS) if is_rare else _COLUMNS
    places = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO outbox ({', '.join(columns)}) VALUES {', '.join([places] * count)}"


def _values(rows: Sequence[_NewRow], first_seq: int, *, is_rare: bool) -> list[object]:
    """The values of all rows, one row after the other."""
    values: list[object] = []
    for seq, row in enumerate(rows, first_seq):
        event, key = row.event, row.key
        values += (seq, event.id, event.name, event.owner, event.user_id, event.accepted_at_ms)
        values.append(event.payload)
        if is_rare:
            values += (encode_meta(event.meta), key and key.key, key and key.digest.hex())
    return values
