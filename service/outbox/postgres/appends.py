"""The events that share one statement, and the answer for each caller."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from service.errors import IdempotencyKeyReusedError, OutboxUnavailableError, ServiceError
from service.outbox.event import Event
from service.outbox.model import IdempotencyKey, Receipt

# Stores the new rows, synced whatever the database's default is; returns their ids. A row with a
# delay goes into the lane of due_at.
APPEND = """
WITH given AS (
    SELECT * FROM unnest(
        %(ids)b::text[], %(names)b::text[], %(owners)b::text[], %(users)b::text[],
        %(accepted)b::bigint[], %(due)b::bigint[], %(traces)b::text[], %(keys)b::text[],
        %(digests)b::bytea[], %(payloads)b::bytea[], %(express)b::boolean[]
    ) AS g(event_id, name, owner, user_id, accepted_at_ms, due_at_ms, trace, key, digest, payload,
           express)
), put AS (
    INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, trace, idempotency_key,
                        idempotency_digest, payload)
    SELECT event_id, name, owner, user_id, accepted_at_ms, trace, key, digest, payload FROM given
    ON CONFLICT DO NOTHING
    RETURNING seq, event_id, owner, octet_length(payload) AS payload_bytes
), held AS (
    SELECT event_id, to_timestamp(due_at_ms / 1000.0) AS due_at FROM given, outbox_mark
    WHERE due_at_ms > 0 AND to_timestamp(due_at_ms / 1000.0) > greatest(clock_timestamp(), due_from)
), ready AS (
    INSERT INTO outbox_ready (seq, payload_bytes, due_at, held, express_seq)
    SELECT seq, payload_bytes, due_at, due_at IS NOT NULL, CASE WHEN express THEN seq END
    FROM put JOIN given USING (event_id) LEFT JOIN held USING (event_id)
), changed AS (
    INSERT INTO outbox_changes (owners, pending, stored, stored_bytes)
    SELECT array_agg(owner), array_agg(rows), array_agg(rows), array_agg(bytes)
    FROM (SELECT owner, count(*) AS rows, sum(payload_bytes) AS bytes
          FROM put GROUP BY owner) AS by_owner
    HAVING count(*) > 0
)
SELECT event_id FROM put, set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
         ELSE current_setting('synchronous_commit') END, true) AS synced
"""

# What is stored under these ids, or under these owners' keys. The write makes the commit wait for
# all commits before it, also for those of which no standby may have heard.
FIND_STORED = """
WITH synced AS (
    INSERT INTO outbox_changes DEFAULT VALUES RETURNING set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
             ELSE current_setting('synchronous_commit') END, true)
)
SELECT event_id, owner, idempotency_key, idempotency_digest FROM outbox, synced
WHERE event_id = ANY(%(ids)s::text[])
UNION
SELECT o.event_id, o.owner, o.idempotency_key, o.idempotency_digest
FROM unnest(%(owners)s::text[], %(keys)s::text[]) AS g(owner, key)
JOIN outbox o ON o.owner = g.owner AND o.idempotency_key = g.key
"""


class Append(msgspec.Struct, frozen=True, eq=False):
    """One event that waits to be stored; `done` gets its receipt.

    `express` is whether its owner has few rows in a full queue.
    """

    event: Event
    key: IdempotencyKey | None
    trace: str | None
    express: bool
    done: asyncio.Future[Receipt]
    deadline: float


def columns(batch: list[Append]) -> dict[str, object]:
    """The parameters of APPEND."""
    events = [item.event for item in batch]
    return {
        "ids": [event.id for event in events],
        "names": [event.name for event in events],
        "owners": [event.owner for event in events],
        "users": [event.user_id for event in events],
        "accepted": [event.accepted_at_ms for event in events],
        "due": [event.due_at_ms for event in events],
        "traces": [item.trace for item in batch],
        "keys": [item.key and item.key.key for item in batch],
        "digests": [item.key and item.key.digest for item in batch],
        "payloads": [event.payload for event in events],
        "express": [item.express for item in batch],
    }


def answer(
    item: Append, ids: set[str], by_key: dict[tuple[str, str], tuple[str, bytes]]
) -> Receipt | ServiceError:
    """The answer for an event that was stored before. `by_key` is the result of FIND_STORED."""
    found = by_key.get((item.event.owner, item.key.key)) if item.key else None
    if item.key and found:
        try:
            return receipt(item.event, item.key, *found)
        except IdempotencyKeyReusedError as exc:
            return exc
    if item.event.id in ids:
        return Receipt(item.event.id)
    # The key's first row was removed between the two statements; the caller may try again.
    return OutboxUnavailableError(retry_after_seconds=1)


def receipt(event: Event, key: IdempotencyKey, stored_id: str, digest: bytes) -> Receipt:
    """The receipt of the event of a key. Raises IdempotencyKeyReusedError."""
    if bytes(digest) != key.digest:
        raise IdempotencyKeyReusedError
    return Receipt(stored_id, replayed=stored_id != event.id)


def resolve(batch: list[Append], receipts: Sequence[Receipt | ServiceError]) -> None:
    """Give each caller its receipt or its error."""
    for item, receipt in zip(batch, receipts, strict=True):
        if item.done.done():
            continue
        if isinstance(receipt, ServiceError):
            item.done.set_exception(receipt)
        else:
            item.done.set_result(receipt)


def fail(batch: list[Append], cause: Exception | None = None) -> None:
    """Tell each caller that the outbox is not available."""
    for item in batch:
        if not item.done.done():
            error = OutboxUnavailableError()
            error.__cause__ = cause
            item.done.set_exception(error)
