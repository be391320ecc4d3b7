"""A breaker in a few words, and one process's with the record that it shares with others."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.inngest.send_result import Signal
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.relay.breaker import Breaker
from inngest_outbox.relay.breaker_result import with_result
from inngest_outbox.relay.breaker_sync import Announcement, BreakerSync
from inngest_outbox.relay.sends import Answered, BreakerState, InFlight
from tests.support.memory_outbox import MemoryDelivery
from tests.support.virtual_time import now, run_in_virtual_time

IDLE = InFlight()


def fresh(*, senders: int = 4) -> Breaker:
    return Breaker.fresh(500, 1 << 20, senders)


def after(breaker: Breaker, signal: Signal, now: float = 0.0, **answer: object) -> Breaker:
    answered = replace(Answered(signal, now), **answer)
    return with_result(breaker, answered, permit=breaker.permit(IDLE), now=now, jitter=0.5)


def passed(breaker: Breaker, now: float = 0.0, **answer: object) -> Breaker:
    return after(breaker, Signal.PASSED, now, **answer)


def knowing(breaker: Breaker, **known: Any) -> Breaker:
    """The breaker with this in its ledger."""
    return replace(breaker, ledger=replace(breaker.ledger, **known))


def waiting(until: float, state: BreakerState = BreakerState.BACKING_OFF) -> Breaker:
    return fresh().with_wait(state, "503", until)


class Store(MemoryDelivery):
    """The record, which counts the saves of the process under test. `away` makes it fail."""

    saves = 0
    away = False

    async def load(self) -> DeliveryRecord:
        if self.away:
            raise OutboxUnavailableError
        return await super().load()

    async def save(self, record: DeliveryRecord) -> DeliveryRecord:
        self.saves += 1
        return await super().save(record)


class Process:
    """One process's breaker. It exchanges it at each full second, and runs from 0."""

    def __init__(self, breaker: Breaker, announcement: Announcement | None = None) -> None:
        self.store = Store(now)
        self.changed_at: list[float] = []
        self.keeper = BreakerSync(
            self.store, breaker, lambda: self.changed_at.append(now()), announcement
        )
        self.keeping = asyncio.create_task(self.keeper.keep())

    def another(self, **told: Any) -> None:
        """Another process, or a person, changes the record."""
        self.store.change(msgspec.structs.replace(self.store.record, **told))

    async def tick(self) -> Breaker:
        """The breaker after the next exchange."""
        await asyncio.sleep(1.0 - now() % 1.0 + 0.25)
        return self.keeper.breaker


def at_a_process(
    breaker: Breaker | None = None, announcement: Announcement | None = None
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """A test in virtual time, whose first argument is such a process."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        async def main(**given: Any) -> None:
            process = Process(breaker or fresh(), announcement)
            await test(process, **given)
            process.keeping.cancel()

        @functools.wraps(test)
        def run(**given: Any) -> None:
            run_in_virtual_time(main(**given))

        _, *others = inspect.signature(test).parameters.values()
        run.__signature__ = inspect.Signature(others)  # type: ignore[attr-defined]
        return run

    return decorate
