"""Appending to an SQLite outbox, and looking a row up.

One statement inserts all events that wait at one moment. The invariant: an idempotency key and its
event are in the same commit, so that two requests with one key can't both insert.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from service.errors import IdempotencyKeyReusedError
from service.observe.recorder import Recorder
from service.outbox.event import Event
from service.outbox.model import IdempotencyKey, Receipt
from service.outbox.sqlite.quota import PendingCounts

# Inserts many rows in one step of SQLite: executemany would hand the interpreter lock back and
# forth for each row. ?1 is a JSON array of metadata, ?2 all payloads joined.
APPEND = """
INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, trace, idempotency_key,
                    idempotency_digest, payload)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
       value ->> 7, substr(?2, value ->> 8, value ->> 9)
FROM json_each(?1)
"""

# The rows of one APPEND are pending: ?1 is a JSON array of their sizes, ?2 the first one's seq.
# Rows that one statement inserts are numbered without a gap, since nobody else writes.
APPEND_READY = """
INSERT INTO outbox_ready (seq, payload_bytes) SELECT ?2 + key, value FROM json_each(?1)
"""

# The earlier uses of (owner, key) pairs: ?1 is a JSON array of [owner, key].
KEYS_USED = """
SELECT owner, idempotency_key, event_id, idempotency_digest FROM outbox, json_each(?1)
WHERE owner = value ->> 0 AND idempotency_key = value ->> 1
"""

_encode = msgspec.json.Encoder().encode


class Append(msgspec.Struct, frozen=True, gc=False):
    """One event on its way in."""

    event: Event
    key: IdempotencyKey | None
    trace: str | None


class SqliteIntake:
    """The kind of work that appends (see `Kind`)."""

    synced: ClassVar[bool] = True

    def __init__(self, counts: PendingCounts, recorder: Recorder) -> None:
        self._counts = counts
        self._recorder = recorder
        self.appended = 0

    def apply(self, connection: sqlite3.Connection, works: Sequence[Append]) -> Sequence[Any]:
        """Insert all; a Receipt or IdempotencyKeyReusedError for each."""
        keyed = [work for work in works if work.key]
        if not keyed:
            _insert(connection, works)
            return [Receipt(work.event.id) for work in works]
        return _insert_keyed(connection, works, _keys_used(connection, keyed))

    def committed(
        self, works: Sequence[Append], results: Sequence[Any], taken: Sequence[bool]
    ) -> None:
        """Count what was accepted; give back the room of works that inserted nothing."""
        del taken
        stored = len(works)
        for work, result in zip(works, results, strict=True):
            if work.key and (isinstance(result, Exception) or result.replayed):
                self._counts.left(work.event.owner)
                stored -= 1
        self.appended += stored
        self._recorder.count("accepted", stored)
        self._recorder.observe("group_events", len(works))

    def failed(self, works: Sequence[Append]) -> None:
        """Give all room back."""
        for work in works:
            self._counts.left(work.event.owner)


def used_receipt(connection: sqlite3.Connection, owner: str, key: IdempotencyKey) -> Receipt | None:
    """The receipt of an earlier use of `key`, None if unused. Raises IdempotencyKeyReusedError."""
    rows = connection.execute(KEYS_USED, (_encode([(owner, key.key)]).decode(),)).fetchall()
    if not rows:
        return None
    verdict = _verdict(rows[0][2], rows[0][3], key)
    if isinstance(verdict, Exception):
        raise verdict
    return verdict


def _keys_used(
    connection: sqlite3.Connection, keyed: Sequence[Append]
) -> dict[tuple[str, str], tuple[str, str]]:
    pairs = [(work.event.owner, work.key.key) for work in keyed if work.key]
    rows = connection.execute(KEYS_USED, (_encode(pairs).decode(),)).fetchall()
    return {(owner, key): (event_id, digest) for owner, key, event_id, digest in rows}


def _insert_keyed(
    connection: sqlite3.Connection,
    works: Sequence[Append],
    used: dict[tuple[str, str], tuple[str, str]],
) -> list[Any]:
    results: list[Any] = []
    fresh: list[Append] = []
    for work in works:
        if work.key is None:
            fresh.append(work)
            results.append(Receipt(work.event.id))
            continue
        first = used.setdefault(
            (work.event.owner, work.key.key), (work.event.id, work.key.digest.hex())
        )
        if first[0] == work.event.id:
            fresh.append(work)
            results.append(Receipt(work.event.id))
        else:
            results.append(_verdict(*first, work.key))
    if fresh:
        _insert(connection, fresh)
    return results


def _verdict(
    event_id: str, digest: str, key: IdempotencyKey
) -> Receipt | IdempotencyKeyReusedError:
    if digest == key.digest.hex():
        return Receipt(event_id, replayed=True)
    return IdempotencyKeyReusedError()


def _insert(connection: sqlite3.Connection, works: Sequence[Append]) -> None:
    meta: list[tuple[object, ...]] = []
    sizes: list[int] = []
    start = 1
    for work in works:
        event, key = work.event, work.key
        size = len(event.payload)
        meta.append(
            (
                event.id,
                event.name,
                event.owner,
                event.user_id,
                event.accepted_at_ms,
                work.trace,
                key and key.key,
                key and key.digest.hex(),
                start,
                size,
            )
        )
        sizes.append(size)
        start += size
    payloads = b"".join([work.event.payload for work in works])
    inserted = connection.execute(APPEND, (_encode(meta).decode(), payloads))
    assert inserted.lastrowid is not None  # noqa: S101
    first_seq = inserted.lastrowid - len(works) + 1
    connection.execute(APPEND_READY, (_encode(sizes).decode(), first_seq))
