"""Posts to an outbox whose store may be away: what is acknowledged, what fails, and how soon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from inngest_outbox.errors import OutboxUnavailableError, TooManyPendingError
from inngest_outbox.outbox.model import Filter
from tests.support.beside import beside
from tests.support.storage import Outbox, event, eventually

# An append fails within 2 s; a machine that is busy with other tests gets some more.
FAILS_WITHIN_SECONDS = 30.0
WORKERS = 8


async def can_append(outbox: Outbox) -> bool:
    """Whether the store takes an event now."""
    try:
        await outbox.intake.append(event())
    except (OutboxUnavailableError, TooManyPendingError):
        return False
    return True


async def fails_soon(outbox: Outbox) -> None:
    async with asyncio.timeout(FAILS_WITHIN_SECONDS):
        with pytest.raises(OutboxUnavailableError) as error:
            await outbox.intake.append(event())
    assert error.value.retry_after_seconds


class Posting:
    """Appends until it is stopped, and remembers what was acknowledged and what refused."""

    def __init__(self, outbox: Outbox) -> None:
        self.accepted: list[str] = []
        self.refused: set[str] = set()
        self._outbox = outbox

    @property
    def failed(self) -> int:
        """How many were refused."""
        return len(self.refused)

    @contextlib.asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        async with beside(*(self._post() for _ in range(WORKERS))):
            yield

    async def more(self, count: int = 50) -> None:
        """Wait until so many more were acknowledged."""
        wanted = len(self.accepted) + count
        await eventually(lambda: len(self.accepted) >= wanted)

    async def _post(self) -> None:
        while True:
            posted = event()
            try:
                receipt = await self._outbox.intake.append(posted)
                self.accepted.append(receipt.event_id)
            except OutboxUnavailableError:
                self.refused.add(posted.id)
                await asyncio.sleep(0.01)


async def stored(outbox: Outbox) -> list[str]:
    return [row.id for row in await outbox.inspector.rows(Filter(limit=1_000_000))]
