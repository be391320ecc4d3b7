"""Asking Inngest with a request that holds no event.

Used where no event can tell: whether trouble is over while nothing is waiting, whether anything
smaller passes than an event that was too large, whether one event that fails is the cause. The
invariant: such an answer is no evidence that events pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from service.relay.breaker_sync import BreakerSync
from service.relay.permit import BreakerState
from service.relay.send_result import SendResult
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
    """Asks `sender` with nothing, one request at a time, and tells the breaker of `keeper`."""

    def __init__(self, sender: Sender, keeper: BreakerSync) -> None:
        self._sender = sender
        self._keeper = keeper
        self._asking: asyncio.Task[None] | None = None

    def nothing_due(self) -> None:
        """A claim has found nothing for a while: end recovery, or ask whether trouble is over."""
        breaker = self._keeper.breaker
        if breaker.state is BreakerState.RECOVERING:
            self._keeper.move(breaker.with_idle())
        elif breaker.state.waits:
            self.ask(lambda: self._keeper.move(self._keeper.breaker.with_idle()))

    def too_large(self, seq: int) -> None:
        """An event was too large, and nothing of its size has passed: ask whether less passes."""
        self.ask(lambda: self._smaller_passes(seq))

    def ask(self, then: Callable[[], None]) -> None:
        """Ask, and call `then` where Inngest answers and nothing else has changed meanwhile.

        Does nothing while another question is under way.
        """
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(then), name="ask-with-nothing")

    async def stop(self) -> None:
        """End a question that is under way."""
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
