"""Which event of an SQLite outbox has an idempotency key."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from service.outbox.clock import Clock
from service.outbox.event import Event, decode_meta
from service.outbox.keys import Division, Keys, KeyUse, divide
from service.outbox.sqlite.memory import Memory
from service.outbox.sqlite.reader import SqliteReader

# ?1 is a JSON array of [owner, key].
KEYS_USED = """
SELECT owner, idempotency_key, event_id, seq, accepted_at_ms, idempotency_digest,
       meta
FROM json_each(?1) CROSS JOIN outbox ON owner = value ->> 0 AND idempotency_key = value ->> 1
"""
# ?1 is a JSON array of seqs. The one change that a stored row knows.
TAKE_KEYS = """
UPDATE outbox SET idempotency_key = NULL, idempotency_digest = NULL
WHERE seq IN (SELECT value FROM json_each(?1))
"""

_encode = msgspec.json.Encoder().encode


class EarlierUses:
    """Reads which events of a call are stored, beside the writer."""

    def __init__(self, reader: SqliteReader, memory: Memory, clock: Clock) -> None:
        self._reader = reader
        self._memory = memory
        self._clock = clock

    async def known(self, events: Sequence[Event], keys: Keys) -> Division | None:
        """The events divided by what is stored, None where none of them is.

        Raises IdempotencyKeyReusedError and OutboxUnavailableError.
        """
        if not any(keys):
            return None
        uses = await self._reader.run_soon(uses_of, events, keys)
        if not uses:
            return None
        ids, now_ms = self._memory.known_ids(), self._clock.now_ms()
        return divide(events, keys, uses=uses, ids=ids, next_seq=0, now_ms=now_ms)


def uses_of(
    connection: sqlite3.Connection,
    events: Sequence[Event],
    keys: Keys,
) -> dict[tuple[str, str], KeyUse]:
    """The earlier uses of the keys of `events`."""
    pairs = [(event.owner, key.key) for event, key in zip(events, keys, strict=True) if key]
    found = connection.execute(KEYS_USED, (_encode(pairs).decode(),)).fetchall()
    return {
        (owner, key): KeyUse(
            event_id, seq, accepted_at_ms, bytes.fromhex(digest), decode_meta(meta)
        )
        for owner, key, event_id, seq, accepted_at_ms, digest, meta in found
    }


def take_keys(connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Take the keys of these rows away."""
    connection.execute(TAKE_KEYS, (_encode(seqs).decode(),))
