"""The operators of a history."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from inngest_outbox.errors import OutboxError
from inngest_outbox.outbox.model import Filter, Named, State
from inngest_outbox.outbox.sqlite.store import SqliteOutbox
from tests.support.named_rows import named
from tests.support.simulation.clients import Told

_DRAIN_SECONDS = 30.0


class Operators:
    """Replay, discard, purge, pause and look, and note in `told` what they were told.

    `arrivals` says how many requests with events have reached Inngest. `broken` is called with the
    words for a promise that was seen broken.
    """

    def __init__(
        self,
        chance: random.Random,
        told: Told,
        arrivals: Callable[[], int],
        broken: Callable[[str], None],
    ) -> None:
        self._chance = chance
        self._told = told
        self._arrivals = arrivals
        self._broken = broken

    async def operate(self, outbox: SqliteOutbox) -> None:
        """Act until cancelled."""
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / 1200))
            with contextlib.suppress(OutboxError):
                await self._act(outbox)

    async def _act(self, outbox: SqliteOutbox) -> None:
        repairs = outbox.repairs
        match self._chance.randrange(5):
            case 0:
                some = Filter(state=State.DEAD, limit=self._chance.randrange(1, 20))
                await repairs.replay(await named(outbox.inspector, some), actor="kim")
            case 1:
                rows = await outbox.inspector.rows(Filter(state=State.DEAD, limit=3))
                await self._discard(outbox, *(row.id for row in rows))
            case 2:
                await repairs.set_paused(paused=True, actor="kim")
                await self._discard(outbox)
                await self._is_paused(self._chance.uniform(1, 600))
                await repairs.set_paused(paused=False, actor="kim")
            case 3:
                await self._purge(outbox)
            case _:
                await outbox.inspector.stats()

    async def _discard(self, outbox: SqliteOutbox, *ids: str) -> None:
        """Events with these ids may go, and no others: none where a search has found none."""
        self._told.discarded |= set(ids)
        gone = set(await outbox.repairs.discard(Named(ids), actor="kim"))
        self._told.gone |= gone
        if not gone <= set(ids):
            self._broken("a discard took an event that it did not name")

    async def _is_paused(self, seconds: float) -> None:
        """Nothing arrives at Inngest in a pause, once the requests under way have ended."""
        await asyncio.sleep(_DRAIN_SECONDS)
        before = self._arrivals()
        await asyncio.sleep(seconds)
        if self._arrivals() > before:
            self._broken("an event was sent in a pause")

    async def _purge(self, outbox: SqliteOutbox) -> None:
        """A purged event has lost its key."""
        self._told.keys.clear()
        try:
            seconds = self._chance.choice([1, 600])
            await outbox.repairs.purge(older_than_seconds=seconds, actor="kim")
        finally:
            self._told.keys.clear()
