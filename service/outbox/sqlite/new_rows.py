"""Inserting events into an SQLite outbox as pending rows.

Each statement inserts all rows in one step of SQLite: executemany would hand the interpreter lock
back and forth for each row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from service.outbox.event import Event
from service.outbox.keys import IdempotencyKey

# ?1 is a JSON array of metadata, ?2 all payloads joined, ?3 the first seq.
APPEND = """
INSERT INTO outbox (seq, event_id, name, owner, user_id, accepted_at_ms, trace, idempotency_key,
                    idempotency_digest, wire_id, environment, payload)
SELECT ?3 + key, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
       value ->> 6, value ->> 7, value ->> 10, value ->> 11,
       substr(?2, value ->> 8, value ->> 9)
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
    payloads = b"".join([row.event.payload for row in rows])
    connection.execute(APPEND, (_metadata(rows), payloads, first_seq))
    if any(row.express or row.event.due_at_ms for row in rows):
        marked = [(len(row.event.payload), row.event.due_at_ms, int(row.express)) for row in rows]
        connection.execute(APPEND_READY_MARKED, (_encode(marked).decode(), first_seq))
    else:
        sizes = [len(row.event.payload) for row in rows]
        connection.execute(APPEND_READY, (_encode(sizes).decode(), first_seq))


def _metadata(rows: Sequence[NewRow]) -> str:
    columns: list[tuple[object, ...]] = []
    start = 1
    for row in rows:
        event, key = row.event, row.key
        size = len(event.payload)
        columns.append(
            (
                event.id,
                event.name,
                event.owner,
                event.user_id,
                event.accepted_at_ms,
                row.trace,
                key and key.key,
                key and key.digest.hex(),
                start,
                size,
                event.wire_id,
                event.environment,
            )
        )
        start += size
    return _encode(columns).decode()
