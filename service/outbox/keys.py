"""What an idempotency key that was used before means; the same in every store."""

from __future__ import annotations

from service.errors import IdempotencyKeyReusedError
from service.outbox.model import IdempotencyKey, Receipt


def decision_on(
    key: IdempotencyKey, event_id: str, digest: bytes
) -> Receipt | IdempotencyKeyReusedError:
    """The first receipt again for the same digest, else the error to raise.

    `event_id` and `digest` are those of the key's first use.
    """
    if digest == key.digest:
        return Receipt(event_id, replayed=True)
    return IdempotencyKeyReusedError()
