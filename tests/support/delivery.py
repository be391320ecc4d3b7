"""A relay at work between a real SQLite outbox and the fake Inngest."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.identity.user import User
from inngest_outbox.inngest.sender import InngestSender
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.event import encode_event
from inngest_outbox.outbox.model import Row, State
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from inngest_outbox.relay.breaker_policy import BreakerPolicy
from inngest_outbox.relay.outcome import RetryPolicy
from inngest_outbox.relay.relay import Relay, RelayLimits
from inngest_outbox.relay.sends import BreakerState
from tests.support.beside import beside
from tests.support.storage import LIMITS, PATIENT_WRITER, eventually


class Document(msgspec.Struct, rename="camel"):
    document_name: str


@dataclass(frozen=True)
class Policies:
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    drain_seconds: float = 5


AS_SERVED = Policies()
# Tens of milliseconds where the real delays are seconds.
QUICK = Policies(
    RetryPolicy(
        refusal_delays_seconds=(0.02, 0.04),
        isolated_delay_seconds=0.01,
        max_isolated_delay_seconds=0.05,
    ),
    BreakerPolicy(max_backoff=0.3),
)


class Delivery:
    """A relay at work, and what becomes of the events that are given to it."""

    def __init__(self, outbox: SqliteOutbox, relay: Relay, api: FakeInngest) -> None:
        self.outbox = outbox
        self.relay = relay
        self.api = api

    async def accept(self, *names: str) -> list[str]:
        """Append an event for each name at one moment; their ids."""
        user = User(
            issuer="dev",
            id="u-1",
            email=None,
            name=None,
            organization_id=None,
            email_verified=False,
        )
        now_ms = int(time.time() * 1000)
        events = [
            encode_event("documents/aws.index", Document(name), user, now_ms) for name in names
        ]
        await asyncio.gather(*(self.outbox.intake.append(one) for one in events))
        return [one.id for one in events]

    async def row(self, event_id: str) -> Row:
        row = await self.outbox.intake.find(event_id)
        assert row is not None
        return row

    async def ends(self, ids: list[str], state: State = State.DELIVERED) -> list[Row]:
        """Wait until all these events are in `state`."""

        async def rows() -> list[Row]:
            return [await self.row(one) for one in ids]

        return await eventually(rows, lambda found: all(row.state is state for row in found))

    async def delivery_is(self, state: BreakerState) -> None:
        await eventually(lambda: self.relay.breaker.state, lambda found: found is state)


@contextlib.asynccontextmanager
async def delivering(
    path: Path,
    api: FakeInngest,
    *,
    policies: Policies = AS_SERVED,
    send_timeout_seconds: float = 10.0,
) -> AsyncIterator[Delivery]:
    async with (
        open_sqlite_outbox(path, **LIMITS, timings=PATIENT_WRITER) as outbox,
        aiohttp.ClientSession() as http,
    ):
        sender = InngestSender(
            http,
            origin=api.url,
            key="key-1",
            fallback_key=None,
            environment=None,
            timeout_seconds=send_timeout_seconds,
        )
        relay = Relay(
            outbox.queue,
            outbox.delivery,
            sender,
            NullRecorder(),
            RelayLimits(
                max_events=100,
                max_bytes=1 << 20,
                senders=4,
                send_timeout_seconds=send_timeout_seconds,
                drain_seconds=policies.drain_seconds,
            ),
            retry_policy=policies.retry,
            breaker_policy=policies.breaker,
        )
        try:
            async with beside(relay.run(), relay.sync_breaker()):
                yield Delivery(outbox, relay, api)
        finally:
            await relay.stop()
