"""How the outbox stands when a service starts: what waits, and who paused delivery."""

from __future__ import annotations

from dataclasses import dataclass

from service.bootstrap.operations import open_inspector
from service.console.operations.views import PAUSED, delivery_view
from service.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Standing:
    """`waiting` rows are not delivered, None where it is not known; `paused` is who and why."""

    waiting: int | None = None
    paused: str = ""


async def standing_of(url: str) -> Standing:
    """How the outbox at `url` stands. One that can't be read now is no reason not to start."""
    try:
        async with open_inspector(url) as outbox:
            stats = await outbox.stats()
    except ServiceError:
        return Standing()
    waiting = stats.pending + stats.delivering + stats.sent
    delivery = delivery_view(stats.delivery) if stats.delivery else None
    paused = delivery.reason if delivery and delivery.state == PAUSED else None
    return Standing(waiting, paused or "")
