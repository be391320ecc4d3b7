"""Rows brought to the states in which operators find them."""

from __future__ import annotations

from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.model import Dead, Settlement, State
from tests.support.storage import Outbox, append_all, claim, deliver, event, ids


async def bury(outbox: Outbox, count: int = 1, reason: str = "rejected") -> list[str]:
    """Append `count` events and settle them as dead; returns their ids."""
    return await bury_all(outbox, *(event() for _ in range(count)), reason=reason)


async def bury_all(outbox: Outbox, *events: Event, reason: str = "rejected") -> list[str]:
    """Append these events and settle them as dead; returns their ids."""
    for each in events:
        await outbox.intake.append(each)
    batch = await claim(outbox)
    dead = [Dead(entry.seq, 4, reason, f"{reason}: words") for entry in batch.entries]
    await outbox.queue.settle(Settlement(batch.claim, dead=dead))
    assert ids(batch) == [each.id for each in events]
    return ids(batch)


async def one_of_each(outbox: Outbox) -> dict[State, str]:
    """Rows in every state; returns their ids."""
    [dead] = await bury(outbox)
    [delivered] = await append_all(outbox, 1, "u-2")
    await deliver(outbox, await claim(outbox))
    [sent] = await append_all(outbox, 1, "u-5")
    batch = await claim(outbox)
    await outbox.queue.settle(Settlement(batch.claim, sent=[batch.entries[0].seq]))
    [delivering] = await append_all(outbox, 1, "u-3")
    await claim(outbox)
    waiting = event("u-4", name="other/event")
    await outbox.intake.append(waiting)
    return {
        State.DEAD: dead,
        State.DELIVERED: delivered.id,
        State.SENT: sent.id,
        State.DELIVERING: delivering.id,
        State.PENDING: waiting.id,
    }
