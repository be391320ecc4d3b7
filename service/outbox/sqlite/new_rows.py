"""Inserting events into an SQLite outbox as pending rows.

A statement inserts many rows in one step of SQLite: executemany would hand the interpreter lock
back and forth for each row. Bound values cost SQLite half as much as JSON that it has to read. A
column that no row has a value for is left out: binding None costs more than binding a number.
"""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Sequence

import msgspec

from service.outbox.event import Event, encode_meta
from service.outbox.keys import IdempotencyKey

_MAX_ROWS = 256  # of one statement; SQLite binds at most 32,766 values

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
    express: bool


def next_seq(connection: sqlite3.Connection) -> int:
    """The seq that the next row gets."""
    [(seq,)] = connection.execute(NEXT_SEQ).fetchall()
    return int(seq)


def insert(connection: sqlite3.Connection, rows: Sequence[NewRow], first_seq: int) -> None:
    """Insert the rows under consecutive seqs, and make them pending."""
    for start in range(0, len(rows), _MAX_ROWS):
        part = rows[start : start + _MAX_ROWS]
        columns = _columns(part, first_seq + start)
        values = list(itertools.chain.from_iterable(zip(*columns.values(), strict=True)))
        connection.execute(append(len(part), tuple(columns)), values)
    if any(row.express or row.event.meta.due_at_ms for row in rows):
        marked = [
            (len(row.event.payload), row.event.meta.due_at_ms, int(row.express)) for row in rows
        ]
        connection.execute(APPEND_READY_MARKED, (_encode(marked).decode(), first_seq))
    else:
        sizes = [len(row.event.payload) for row in rows]
        connection.execute(APPEND_READY, (_encode(sizes).decode(), first_seq))


@functools.cache
def append(count: int, columns: tuple[str, ...]) -> str:
    """The statement that inserts so many rows with these columns."""
    places = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO outbox ({', '.join(columns)}) VALUES {', '.join([places] * count)}"


def _columns(rows: Sequence[NewRow], first_seq: int) -> dict[str, Sequence[object]]:
    """The values of each column that one of the rows has."""
    events, keys = [row.event for row in rows], [row.key for row in rows]
    always: dict[str, Sequence[object]] = {
        "seq": range(first_seq, first_seq + len(rows)),
        "event_id": [event.id for event in events],
        "name": [event.name for event in events],
        "owner": [event.owner for event in events],
        "user_id": [event.user_id for event in events],
        "accepted_at_ms": [event.accepted_at_ms for event in events],
        "payload": [event.payload for event in events],
    }
    sometimes: dict[str, Sequence[object]] = {
        "meta": [encode_meta(event.meta) for event in events],
    }
    if any(keys):
        sometimes["idempotency_key"] = [key and key.key for key in keys]
        sometimes["idempotency_digest"] = [key and key.digest.hex() for key in keys]
    return always | {name: values for name, values in sometimes.items() if any(values)}
