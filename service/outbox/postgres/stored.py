"""Earlier stored events, and the receipts that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.errors import IdempotencyKeyReusedError, OutboxUnavailableError, ServiceError
from service.outbox.event import Event, Meta
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import IdempotencyKey, KeyUse, replay
from service.outbox.postgres.appends import FIND_STORED, Append
from service.outbox.postgres.pool import PostgresPool
from service.outbox.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Stored:
    """Rows by their events' ids, and by (owner, key). `now_ms` is when they were read."""

    by_id: Mapping[str, KeyUse] = field(default_factory=dict)
    uses: Mapping[tuple[str, str], KeyUse] = field(default_factory=dict)
    now_ms: int = 0


async def find_stored(
    pool: PostgresPool, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
) -> Stored:
    """The rows of these events and of their keys. Raises OutboxUnavailableError."""
    keyed = [(event.owner, key.key) for event, key in zip(events, keys, strict=True) if key]
    given = {
        "ids": [event.id for event in events],
        "owners": [owner for owner, _ in keyed],
        "keys": [key for _, key in keyed],
    }
    rows = await pool.run(FIND_STORED, given, replicated=True)
    by_id = {row[0]: _use(row) for row in rows}
    uses = {(row[1], row[2]): _use(row) for row in rows if row[2] is not None}
    return Stored(by_id, uses, rows[0][-1]) if rows else Stored()


def receipts_of(
    item: Append, new: Mapping[str, int], stored: Stored, ids: InngestIds
) -> Sequence[Receipt] | ServiceError:
    """The receipts of a call; `new` are the seqs that the last statement stored."""
    pairs = zip(item.events, item.keys, strict=True)
    try:
        found = [_receipt(event, key, new, stored, ids) for event, key in pairs]
    except IdempotencyKeyReusedError as exc:
        return exc
    receipts = [receipt for receipt in found if receipt]
    if len(receipts) < len(found):
        # A key's first row was removed between the two statements; the caller may try again.
        return OutboxUnavailableError(retry_after_seconds=1)
    return receipts


def _receipt(
    event: Event,
    key: IdempotencyKey | None,
    new: Mapping[str, int],
    stored: Stored,
    ids: InngestIds,
) -> Receipt | None:
    """None where nothing is stored. Raises IdempotencyKeyReusedError."""
    seq = new.get(event.id)
    if seq is not None:
        return Receipt(event.id, seq, event.accepted_at_ms, ids)
    own = stored.by_id.get(event.id)
    if own:
        return Receipt(event.id, own.seq, own.accepted_at_ms, ids)
    if not key:
        return None
    use = stored.uses.get((event.owner, key.key))
    return replay(key, use, ids) if use else None


def _use(row: Sequence[Any]) -> KeyUse:
    event_id, _, _, digest, seq, accepted_at_ms, inngest_id, _ = row
    return KeyUse(event_id, seq, accepted_at_ms, bytes(digest or b""), Meta(moved_id=inngest_id))
