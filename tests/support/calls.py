"""Calls of `append_all`, as the contract suite makes them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt
from tests.support.storage import Outbox, event


def key(name: str, digest: bytes = b"1", lifetime_seconds: float | None = None) -> IdempotencyKey:
    return IdempotencyKey(name, digest * 32, lifetime_seconds)


def aged(seconds: float) -> Event:
    """An event that was accepted so long ago."""
    young = event()
    return msgspec.structs.replace(young, accepted_at_ms=young.accepted_at_ms - int(seconds * 1000))


async def pending(outbox: Outbox) -> int:
    return (await outbox.inspector.stats()).pending


def replayed(receipts: Sequence[Receipt]) -> list[bool]:
    return [receipt.replayed for receipt in receipts]
