"""Probing Inngest with a request that holds no event.

It answers what no event can: whether trouble is over while nothing waits, whether a smaller request
passes after an event was too large, whether a single failing event is the cause. The invariant:
such an answer is no evidence that events pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from service.inngest.send_result import SendResult
from service.relay.breaker_sync import BreakerSync
from service.relay.permit import BreakerState
from service.supervisor import end

_ANSWERS = frozenset({200, 400})


class Sender(Protocol):
    """Where the relay sends batches."""

    async def send(
        self, payloads: bytes, seed: str | None = None, environment: str | None = None
    ) -> SendResult:
        """Send encoded events, joined by commas, in one request; there may be none.

        `seed` makes Inngest give the events the ULIDs that follow from it. `environment` is
        Inngest's that they go to; None is the service's own. Faults come back as a SendResult.
        """
        ...


class EmptyRequest:
    """Sends empty requests through `sender`, one at a time, and updates the breaker of `keeper`.

    `on_nothing_due` is called when a claim has found nothing for a while.
    """

    def __init__(self, sender: Sender, keeper: BreakerSync) -> None:
        self._sender = sender
        self._keeper = keeper
        self._asking: asyncio.Task[None] | None = None
        self.on_nothing_due: Callable[[], None] = lambda: None

    def nothing_due(self) -> None:
        """A claim has found nothing for a while: end recovery, or probe whether trouble is over."""
        self.on_nothing_due()
        breaker = self._keeper.breaker
        if breaker.state is BreakerState.RECOVERING:
            self._keeper.move(breaker.with_idle())
        elif breaker.state.waits:
            self.ask(lambda: self._keeper.move(self._keeper.breaker.with_idle()))

    def too_large(self, seq: int) -> None:
        """An event was too large, and none of its size has passed: probe with a smaller request."""
        self.ask(lambda: self._smaller_passes(seq))

    def ask(self, then: Callable[[], None]) -> None:
        """Send one, and call `then` if Inngest answers and the breaker has not changed meanwhile.

        Does nothing while another one is in flight.
        """
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(then), name="ask-with-nothing")

    async def stop(self) -> None:
        """Cancel a request in flight."""
        if self._asking:
            await end(self._asking)

    async def _ask(self, then: Callable[[], None]) -> None:
        try:
            epoch = self._keeper.breaker.epoch
            result = await self._sender.send(b"")
            is_answer = result.status in _ANSWERS and result.ids is not None
            if is_answer and self._keeper.breaker.epoch == epoch:
                then()
        finally:
            self._asking = None

    def _smaller_passes(self, seq: int) -> None:
        breaker = self._keeper.breaker
        ledger = breaker.ledger.with_smaller_pass(seq)
        self._keeper.move(replace(breaker, ledger=ledger))
