"""A relay at work in the model of its neighbours, and where each kind of event has to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.model import ClaimRequest, Named
from inngest_outbox.relay.relay import Relay, RelayLimits
from tests.support.beside import beside
from tests.support.delivery_model import (
    BLOCKED,
    FAILING,
    HANGING,
    HEALTHY,
    HUGE,
    REFUSED,
    ModelInngest,
    ModelOutbox,
)
from tests.support.memory_rows import MemoryRow

REASONS = {
    REFUSED: "rejected",
    FAILING: "undeliverable",
    HANGING: "undeliverable",
    HUGE: "too_large",
    **dict.fromkeys(BLOCKED, "undeliverable"),
}


class Remembering(NullRecorder):
    """A recorder that remembers what it was told."""

    def __init__(self) -> None:
        self.shown: dict[str, float] = {}
        self.counted: Counter[str] = Counter()

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        self.counted[name] += int(value)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.shown[name] = value


class World:
    """A relay between the models. `beside` is what else runs."""

    def __init__(
        self,
        *,
        senders: int = 4,
        max_events: int = 50,
        max_bytes: int = 1 << 30,
        outbox: ModelOutbox | None = None,
        inngest: ModelInngest | None = None,
    ) -> None:
        self.outbox = outbox or ModelOutbox()
        self.queue = self.outbox.queue
        self.recorder = Remembering()
        self.inngest = inngest or ModelInngest(max_bytes=max_bytes)
        self.beats = 0
        self._limits = (max_events, senders)
        self.relay = self.made_relay()
        self.beside: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def made_relay(self, *, drain_seconds: float = 30, **options: Any) -> Relay:
        """A relay with these limits, and with `options` of Relay's own."""
        max_events, senders = self._limits
        return Relay(
            self.queue,
            self.outbox.delivery,
            self.inngest,
            self.recorder,
            RelayLimits(
                max_events=max_events,
                max_bytes=1 << 20,
                senders=senders,
                send_timeout_seconds=10,
                drain_seconds=drain_seconds,
            ),
            beat=self._beat,
            **options,
        )

    @contextlib.asynccontextmanager
    async def restarted(self) -> AsyncIterator[None]:
        """Another process at work on the same queue; what the last one held is due again."""
        self.outbox.rows.restart()
        self.relay = self.made_relay(drain_seconds=0)
        async with self.running():
            yield

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            works = (self.relay.run, self.relay.sync_breaker, *self.beside)
            async with beside(*(work() for work in works)):
                yield
        finally:
            await self.relay.stop()

    def request(self) -> ClaimRequest:
        return ClaimRequest(50, 1 << 20, 40.0)

    def _beat(self) -> None:
        self.beats += 1

    def add(self, *kinds: str) -> list[MemoryRow]:
        return [self.outbox.add(kind) for kind in kinds]

    async def discard(self, rows: list[MemoryRow]) -> None:
        """Remove rows, each as soon as it is under no claim."""
        for row in rows:
            wanted = Named((row.event.id,))
            while not await self.outbox.repairs.discard(wanted, actor="ada"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def until(self, rows: list[MemoryRow], seconds: float) -> float:
        """Wait until every row is settled; how long it took."""
        began = asyncio.get_running_loop().time()
        while left := [row for row in rows if row.settled_at is None]:
            waited = asyncio.get_running_loop().time() - began
            assert waited <= seconds, (
                f"not settled after {waited:g} s: {left[:5]}, {self.relay.breaker}"
            )
            await asyncio.sleep(0.1)
        return asyncio.get_running_loop().time() - began


def check(rows: list[MemoryRow], *, may_be_too_large: bool = False) -> None:
    """Each row ended where its kind belongs.

    Where everything was too large for a while, an event that was known to be bad may have died so.
    """
    also = {"too_large"} if may_be_too_large else set()
    for row in rows:
        if row.kind == HEALTHY:
            assert row.state == "delivered", row
        else:
            assert row.state == "dead", row
            assert row.reason in {REASONS[row.kind], *also}, row
