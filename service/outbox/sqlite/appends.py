"""Appending to an SQLite outbox: the kind of work.

One statement inserts all events that wait at one moment. The invariant: an idempotency key and its
event are in the same commit, so that two requests with one key can't both insert.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from service.observe.recorder import Recorder
from service.outbox.event import Event
from service.outbox.keys import decision_on
from service.outbox.model import IdempotencyKey, Receipt
from service.outbox.sqlite.picking import Picker
from service.outbox.sqlite.quota import StoredCounts

# Inserts many rows in one step of SQLite: executemany would hand the interpreter lock back and
# forth for each row. ?1 is a JSON array of metadata, ?2 all payloads joined, ?3 the first seq.
APPEND = """
INSERT INTO outbox (seq, event_id, name, owner, user_id, accepted_at_ms, trace, idempotency_key,
                    idempotency_digest, payload)
SELECT ?3 + key, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
       value ->> 6, value ->> 7, substr(?2, value ->> 8, value ->> 9)
FROM json_each(?1)
"""

# A seq is never given again, not even that of a removed row: Inngest's id follows from it.
NEXT_SEQ = """
SELECT max(coalesce((SELECT max(seq) FROM outbox), 0), last_seq) + 1 FROM outbox_meta
"""

# The rows of one APPEND are pending: ?1 is a JSON array of their sizes, ?2 the first one's seq.
APPEND_READY = """
INSERT INTO outbox_ready (seq, payload_bytes) SELECT ?2 + key, value FROM json_each(?1)
"""
# The same for rows of which some are held or express: ?1 is a JSON array of
# [size, due at, express].
APPEND_READY_MARKED = """
INSERT INTO outbox_ready (seq, payload_bytes, due_at_ms, held, express)
SELECT ?2 + key, value ->> 0, value ->> 1, (value ->> 1) > 0, value ->> 2 FROM json_each(?1)
"""

# The earlier uses of (owner, key) pairs: ?1 is a JSON array of [owner, key].
KEYS_USED = """
SELECT owner, idempotency_key, event_id, idempotency_digest FROM outbox, json_each(?1)
WHERE owner = value ->> 0 AND idempotency_key = value ->> 1
"""

_encode = msgspec.json.Encoder().encode
_Uses = dict[tuple[str, str], tuple[str, str]]


class Append(msgspec.Struct, frozen=True, gc=False):
    """One event on its way in. `express` is whether its owner has few rows in a full queue."""

    event: Event
    key: IdempotencyKey | None = None
    trace: str | None = None
    express: bool = False


class SqliteAppends:
    """The kind of work that appends (see `WorkKind`)."""

    synced: ClassVar[bool] = True

    def __init__(self, counts: StoredCounts, picker: Picker, recorder: Recorder) -> None:
        self._counts = counts
        self._picker = picker
        self._recorder = recorder
        self._next_seq: int | None = None
        self.appended = 0

    def apply(self, connection: sqlite3.Connection, items: Sequence[Append]) -> Sequence[Any]:
        """Insert all; a Receipt or IdempotencyKeyReusedError for each."""
        keyed = [item for item in items if item.key]
        if not keyed:
            self._insert(connection, items)
            return [Receipt(item.event.id) for item in items]
        fresh, results = _divided(items, _keys_used(connection, keyed))
        if fresh:
            self._insert(connection, fresh)
        return results

    def committed(
        self, items: Sequence[Append], results: Sequence[Any], still_wanted: Sequence[bool]
    ) -> None:
        """Count what was accepted; give back the room of items that inserted nothing."""
        del still_wanted
        stored = len(items)
        for item, result in zip(items, results, strict=True):
            if item.key and (isinstance(result, Exception) or result.replayed):
                self._counts.undo(item.event.owner, len(item.event.payload))
                stored -= 1
        self.appended += stored
        self._recorder.count("accepted", stored)
        self._recorder.observe("group_events", len(items))

    def failed(self, items: Sequence[Append]) -> None:
        """Give all room back."""
        for item in items:
            self._counts.undo(item.event.owner, len(item.event.payload))

    def _insert(self, connection: sqlite3.Connection, items: Sequence[Append]) -> None:
        first_seq = self._next_seq or _next_seq(connection)
        connection.execute(APPEND, (_metadata(items), _payloads(items), first_seq))
        self._next_seq = first_seq + len(items)
        is_express = any(item.express for item in items)
        self._picker.may_have_express |= is_express
        if is_express or any(item.event.due_at_ms for item in items):
            marked = [
                (len(item.event.payload), item.event.due_at_ms, int(item.express)) for item in items
            ]
            connection.execute(APPEND_READY_MARKED, (_encode(marked).decode(), first_seq))
        else:
            sizes = [len(item.event.payload) for item in items]
            connection.execute(APPEND_READY, (_encode(sizes).decode(), first_seq))


def _next_seq(connection: sqlite3.Connection) -> int:
    [(seq,)] = connection.execute(NEXT_SEQ).fetchall()
    return int(seq)


def used_receipt(connection: sqlite3.Connection, owner: str, key: IdempotencyKey) -> Receipt | None:
    """The receipt of an earlier use of `key`, None if unused. Raises IdempotencyKeyReusedError."""
    rows = connection.execute(KEYS_USED, (_encode([(owner, key.key)]).decode(),)).fetchall()
    if not rows:
        return None
    decision = decision_on(key, rows[0][2], bytes.fromhex(rows[0][3]))
    if isinstance(decision, Exception):
        raise decision
    return decision


def _keys_used(connection: sqlite3.Connection, keyed: Sequence[Append]) -> _Uses:
    pairs = [(item.event.owner, item.key.key) for item in keyed if item.key]
    rows = connection.execute(KEYS_USED, (_encode(pairs).decode(),)).fetchall()
    return {(owner, key): (event_id, digest) for owner, key, event_id, digest in rows}


def _divided(items: Sequence[Append], used: _Uses) -> tuple[list[Append], list[Any]]:
    """The items to insert, and the results of all."""
    fresh: list[Append] = []
    results: list[Any] = []
    for item in items:
        event, key = item.event, item.key
        first = (event.id, "")
        if key:
            first = used.setdefault((event.owner, key.key), (event.id, key.digest.hex()))
        if first[0] == event.id:
            fresh.append(item)
            results.append(Receipt(event.id))
        elif key:
            results.append(decision_on(key, first[0], bytes.fromhex(first[1])))
    return fresh, results


def _payloads(items: Sequence[Append]) -> bytes:
    return b"".join([item.event.payload for item in items])


def _metadata(items: Sequence[Append]) -> str:
    rows: list[tuple[object, ...]] = []
    start = 1
    for item in items:
        event, key = item.event, item.key
        size = len(event.payload)
        rows.append(
            (
                event.id,
                event.name,
                event.owner,
                event.user_id,
                event.accepted_at_ms,
                item.trace,
                key and key.key,
                key and key.digest.hex(),
                start,
                size,
            )
        )
        start += size
    return _encode(rows).decode()
