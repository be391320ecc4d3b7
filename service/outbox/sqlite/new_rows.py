"""Inserting events into an SQLite outbox as pending rows.

A statement inserts many rows in one step of SQLite: executemany would hand the interpreter lock
back and forth for each row. Bound values cost SQLite half as much as JSON that it has to read.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence

import msgspec

from service.outbox.event import Event
from service.outbox.keys import IdempotencyKey

_MAX_ROWS = 256  # of one statement; SQLite binds at most 32,766 values
_COLUMNS = (
    "seq, event_id, name, owner, user_id, accepted_at_ms, trace, idempotency_key, "
    "idempotency_digest, wire_id, environment, payload"
)
_PLACES = f"({', '.join('?' * len(_COLUMNS.split(',')))})"

# A seq is never given again, not even that of a removed row: Inngest's id follows from it.
NEXT_SEQ = """
SELECT max(coalesce((SELECT max(seq) FROM outbox), 0), last_seq) + 1 FROM outbox_meta
"""

# The new rows are pending: ?1 is a JSON array of their sizes, ?2 the first one's seq.
APPEND_READY = """
INSERT INTO outbox_ready (seq, payload_bytes) SELECT ?2 + key, value FROM json_each(?1)
"""
# The same for rows of which some are held or express: ?1 is a JSON array of
# [size, due at, express].
APPEND_READY_MARKED = """
INSERT INTO outbox_ready (seq, payload_bytes, due_at_ms, held, express)
SELECT ?2 + key, value ->> 0, value ->> 1, (value ->> 1) > 0, value ->> 2 FROM json_each(?1)
"""

_encode = msgspec.json.Encoder().encode


class NewRow(msgspec.Struct, frozen=True, gc=False):
    """An event to insert. `express` is whether its owner has few rows in a full queue."""

    event: Event
    key: IdempotencyKey | None
    trace: str | None
    express: bool


def next_seq(connection: sqlite3.Connection) -> int:
    """The seq that the next row gets."""
    [(seq,)] = connection.execute(NEXT_SEQ).fetchall()
    return int(seq)


def insert(connection: sqlite3.Connection, rows: Sequence[NewRow], first_seq: int) -> None:
    """Insert the rows under consecutive seqs, and make them pending."""
    for start in range(0, len(rows), _MAX_ROWS):
        part = rows[start : start + _MAX_ROWS]
        connection.execute(append(len(part)), _values(part, first_seq + start))
    if any(row.express or row.event.due_at_ms for row in rows):
        marked = [(len(row.event.payload), row.event.due_at_ms, int(row.express)) for row in rows]
        connection.execute(APPEND_READY_MARKED, (_encode(marked).decode(), first_seq))
    else:
        sizes = [len(row.event.payload) for row in rows]
        connection.execute(APPEND_READY, (_encode(sizes).decode(), first_seq))


@functools.cache
def append(count: int) -> str:
    """The statement that inserts so many rows."""
    return f"INSERT INTO outbox ({_COLUMNS}) VALUES {', '.join([_PLACES] * count)}"


def _values(rows: Sequence[NewRow], seq: int) -> list[object]:
    values: list[object] = []
    for row in rows:
        event, key = row.event, row.key
        values += (
            seq,
            event.id,
            event.name,
            event.owner,
            event.user_id,
            event.accepted_at_ms,
            row.trace,
            key and key.key,
            key and key.digest.hex(),
            event.wire_id,
            event.environment,
            event.payload,
        )
        seq += 1
    return values
