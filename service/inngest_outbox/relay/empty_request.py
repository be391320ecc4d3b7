"""Probing Inngest with a request that holds no event.

It answers what no event can: whether trouble is over while nothing waits, whether a smaller request
passes after an event was too large, whether a single failing event is the cause. The invariant:
such an answer does not show that events pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from inngest_outbox.inngest.send_result import SendResult, Signal
from inngest_outbox.outbox.model import Batch, Entry
from inngest_outbox.relay.breaker_sync import BreakerSync
from inngest_outbox.relay.report import Report
from inngest_outbox.relay.sends import BreakerState
from inngest_outbox.supervisor import end

_ANSWERS = frozenset({200, 400})
_TAKEN = frozenset({200})


class Sender(Protocol):
    """The receiver of batches."""

    async def send(self, payloads: bytes, headers: Mapping[str, str] = {}) -> SendResult:
        """Send encoded events, joined by commas, in one request; there may be none.

        `headers` say what the events have in common. Faults come back as a SendResult.
        """
        ...


class EmptyRequest:
    """Sends empty requests through `sender`, one at a time, and updates the breaker of `sync`.

    `on_nothing_due` is called when a claim has found nothing for a while.
    """

    def __init__(self, sender: Sender, sync: BreakerSync) -> None:
        self._sender = sender
        self._sync = sync
        self._asking: asyncio.Task[None] | None = None
        self.on_nothing_due: Callable[[], None] = lambda: None

    def nothing_due(self) -> None:
        """A claim has found nothing for a while: end recovery, or probe whether trouble is over."""
        self.on_nothing_due()
        breaker = self._sync.breaker
        if breaker.state is BreakerState.RECOVERING:
            self._sync.move(breaker.with_idle())
        elif breaker.state.waits:
            self.ask(lambda: self._sync.move(self._sync.breaker.with_idle()))

    def too_large(self, seq: int) -> None:
        """An event was too large, and none of its size has passed: probe with a smaller request."""
        self.ask(lambda: self._smaller_passes(seq))

    def witness(self) -> None:
        """Every event has been refused for long: an empty request that is taken is witness."""
        self.ask(self._witnessed, answers=_TAKEN)

    def ask(self, then: Callable[[], None], *, answers: frozenset[int] = _ANSWERS) -> None:
        """Send one, and call `then` if Inngest answers and the breaker has not changed meanwhile.

        `answers` are the statuses of such an answer. Does nothing while another one is in flight.
        """
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(then, answers), name="ask-with-nothing")

    async def stop(self) -> None:
        """Cancel a request in flight."""
        if self._asking:
            await end(self._asking)

    async def _ask(self, then: Callable[[], None], answers: frozenset[int]) -> None:
        try:
            epoch = self._sync.breaker.epoch
            result = await self._sender.send(b"")
            is_answer = result.status in answers and result.ids is not None
            if is_answer and self._sync.breaker.epoch == epoch:
                then()
        finally:
            self._asking = None

    def _witnessed(self) -> None:
        now = asyncio.get_running_loop().time()
        self._sync.move(self._sync.breaker.with_witness(now))

    def _smaller_passes(self, seq: int) -> None:
        breaker = self._sync.breaker
        ledger = breaker.ledger.with_smaller_pass(seq)
        self._sync.move(replace(breaker, ledger=ledger))


_ASK_EVERY = 5


class LoneFailure:
    """Watches the answers and tells `report` about an event that fails by itself."""

    def __init__(self, empty_request: EmptyRequest, report: Report) -> None:
        self._empty_request = empty_request
        self._report = report
        self._seq: int | None = None
        self._failures = 0
        self._told = False
        empty_request.on_nothing_due = self._forget

    def answered(self, batch: Batch, signal: Signal) -> None:
        """One request was answered."""
        if signal is Signal.PASSED or len(batch.entries) > 1:
            self._forget()
            return
        [entry] = batch.entries
        if entry.seq != self._seq:
            self._forget()
        self._seq = entry.seq
        self._failures += 1
        if self._failures % _ASK_EVERY == 0:
            self._empty_request.ask(lambda: self._tell(entry))

    def _tell(self, entry: Entry) -> None:
        if entry.seq == self._seq and not self._told:
            self._told = True
            self._report.lone_event_fails(entry.event_id)

    def _forget(self) -> None:
        self._seq, self._failures = None, 0
        if self._told:
            self._told = False
            self._report.lone_event_fails(None)
