"""A relay with early sends, at work on an SQLite outbox, and the server that it sends to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from service.inngest import prepared_send
from service.inngest.inngest import InngestSender
from service.observe.recorder import NullRecorder
from service.outbox.sqlite.store import SqliteOutbox
from service.relay.early_sends import EarlySends
from service.relay.relay import Relay
from service.relay.relay_limits import RelayLimits
from service.supervisor import end
from tests.support.listening_server import ListeningServer, listening_server
from tests.support.storage import PATIENCE_SECONDS, eventually


@dataclass(frozen=True)
class EarlyRelay:
    """`running` is the task of `relay`, which sends through `http` to `server`."""

    server: ListeningServer
    http: aiohttp.ClientSession
    relay: Relay
    running: asyncio.Task[None]


@contextlib.asynccontextmanager
async def early_relay(
    outbox: SqliteOutbox,
    *,
    drain_seconds: float = PATIENCE_SECONDS,
    keep_seconds: float = PATIENCE_SECONDS,
) -> AsyncIterator[EarlyRelay]:
    """The relay, once its first claim waits for events. Its requests wait so long to begin."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prepared_send, "KEEP_SECONDS", keep_seconds)
        async with _early_relay(outbox, drain_seconds) as relay:
            yield relay


@contextlib.asynccontextmanager
async def _early_relay(outbox: SqliteOutbox, drain_seconds: float) -> AsyncIterator[EarlyRelay]:
    async with listening_server() as server, aiohttp.ClientSession() as http:
        sender = InngestSender(
            http,
            origin=server.url,
            key="one",
            fallback_key=None,
            environment=None,
            timeout_seconds=PATIENCE_SECONDS,
        )
        limits = RelayLimits(500, 1 << 20, 4, PATIENCE_SECONDS, drain_seconds)
        early = EarlySends(sender, outbox.foresight, None)
        relay = Relay(outbox.queue, outbox.delivery, sender, NullRecorder(), limits, early=early)
        running = asyncio.create_task(relay.run())

        async def has_committed() -> bool:
            return outbox.commits.count > 0

        try:
            await eventually(has_committed)
            yield EarlyRelay(server, http, relay, running)
        finally:
            await end(running)
            await relay.stop()
