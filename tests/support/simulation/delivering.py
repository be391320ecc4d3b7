"""A relay and a confirmer at work between an outbox and the simulated Inngest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Protocol

from inngest_outbox.errors import OutboxError
from inngest_outbox.inngest.dedupe_horizon import DedupeHorizon
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.ports import Confirmations, Delivery, Queue
from inngest_outbox.relay.confirmation import ConfirmationPolicy
from inngest_outbox.relay.confirmer import Confirmer
from inngest_outbox.relay.relay import Relay, RelayLimits
from inngest_outbox.relay.report import ConfirmationReport
from inngest_outbox.relay.unconfirmed import Unconfirmed
from tests.support.simulation.simulated_inngest import SimulatedInngest

_CHUNK_ROWS = 50


class Delivered(Protocol):
    """What is used of an outbox."""

    @property
    def queue(self) -> Queue: ...

    @property
    def delivery(self) -> Delivery: ...

    @property
    def confirmations(self) -> Confirmations: ...


class Parts(NamedTuple):
    """The parts that deliver."""

    relay: Relay
    confirmer: Confirmer


@contextlib.asynccontextmanager
async def delivering(
    outbox: Delivered,
    inngest: SimulatedInngest,
    max_unconfirmed: int,
    send_timeout_seconds: float = 10.0,
) -> AsyncIterator[Parts]:
    """Deliver until the block ends; a part that fails begins again."""
    limits = RelayLimits(
        max_events=50,
        max_bytes=1 << 20,
        senders=4,
        send_timeout_seconds=send_timeout_seconds,
        drain_seconds=1,
    )
    unconfirmed = Unconfirmed(max_unconfirmed)
    unconfirmed.recount(await _stubborn(outbox.confirmations.count_sent))
    ids = outbox.confirmations.inngest_ids
    relay = Relay(
        outbox.queue,
        outbox.delivery,
        inngest,
        NullRecorder(),
        limits,
        ids=ids,
        unconfirmed=unconfirmed,
        horizon=DedupeHorizon(inngest, ids),
    )
    report = ConfirmationReport(NullRecorder(), relay.confirmed)
    policy = ConfirmationPolicy(chunk_rows=_CHUNK_ROWS)
    confirmer = Confirmer(outbox.confirmations, inngest, ids, unconfirmed, report, policy=policy)
    works = (relay.run, relay.sync_breaker, confirmer.run)
    tasks = [asyncio.create_task(_kept(work)) for work in works]
    try:
        yield Parts(relay, confirmer)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await relay.stop()


async def _kept(work: Callable[[], Awaitable[object]]) -> None:
    """Start a background task again that fails, as the supervisor does."""
    while True:
        with contextlib.suppress(OutboxError):
            await work()
        await asyncio.sleep(0.1)


async def _stubborn(ask: Callable[[], Awaitable[int]]) -> int:
    while True:
        try:
            return await ask()
        except OutboxError:
            await asyncio.sleep(1)
