"""A claim that is given back in the turn of its commit: what may have left counts as sent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
import pytest

from service.observe.recorder import NullRecorder
from service.outbox.model import Batch, Entry
from service.outbox.sqlite.store import SqliteOutbox
from service.relay.early_sends import EarlySends
from service.relay.inngest import InngestSender
from service.relay.relay import Relay
from service.relay.relay_limits import RelayLimits
from service.supervisor import end
from tests.support.listening_server import ListeningServer, listening_server
from tests.support.storage import PATIENCE_SECONDS, ask, event, eventually


@dataclass
class Desk:
    outbox: SqliteOutbox
    server: ListeningServer
    http: aiohttp.ClientSession
    relay: Relay
    running: asyncio.Task[None]

    async def append_when(self, act: Callable[[], object]) -> None:
        """Append an event; `act` runs in the turn in which the writer learns of its commit.

        The commit waits until the request is ready.
        """
        passed = threading.Event()

        def hold(statement: str) -> None:
            if statement == "COMMIT":
                passed.wait(PATIENCE_SECONDS)

        commit = self.outbox.foresight.commit

        def acting(batch: Batch) -> None:
            self.outbox.foresight.commit = commit  # type: ignore[method-assign]
            act()
            commit(batch)

        self.outbox.foresight.commit = acting  # type: ignore[method-assign]
        await self.outbox.writer.between_commits(lambda raw: raw.set_trace_callback(hold))
        appending = asyncio.ensure_future(self.outbox.intake.append(event()))
        await self.server.until(lambda: bool(self.server.connections))
        for _ in range(10):
            await asyncio.sleep(0)
        passed.set()
        await appending

    async def given_back(self) -> tuple[bool, Entry]:
        """Whether any byte left, and the row as the next claim gets it."""
        [entry] = (await self.outbox.queue.claim(ask())).entries
        await end(self.running)
        await self.http.close()
        await self.server.until(lambda: self.server.connections[0].is_closed)
        return bool(self.server.received), entry


@pytest.fixture
async def desk(outbox: SqliteOutbox) -> AsyncIterator[Desk]:
    """A relay at work, once its first claim waits for events."""
    async with listening_server() as server, aiohttp.ClientSession() as http:
        sender = InngestSender(
            http,
            origin=server.url,
            key="one",
            fallback_key=None,
            environment=None,
            timeout_seconds=PATIENCE_SECONDS,
        )
        limits = RelayLimits(500, 1 << 20, 4, PATIENCE_SECONDS, 0.0)
        early = EarlySends(sender, outbox.foresight, None)
        relay = Relay(outbox.queue, outbox.delivery, sender, NullRecorder(), limits, early=early)
        running = asyncio.create_task(relay.run())

        async def has_committed() -> bool:
            return outbox.commits.count > 0

        await eventually(has_committed)
        with contextlib.ExitStack() as stack:
            stack.callback(running.cancel)
            yield Desk(outbox, server, http, relay, running)
        await end(running)
        await relay.stop()


async def test_what_a_pause_gives_back_never_left(desk: Desk) -> None:
    def pause() -> None:  # as the breaker's exchange with the store does
        desk.relay._keeper.breaker = desk.relay.breaker.with_pause(paused=True)
        desk.relay._wake()

    await desk.append_when(pause)
    left, entry = await desk.given_back()
    assert (left, entry.sends, entry.first_sent_at_ms) == (False, 0, None)


async def test_what_a_stop_gives_back_never_left(desk: Desk) -> None:
    def stop() -> None:  # the first step of `Relay.stop`
        desk.relay._stopping = True
        desk.relay._wake()

    await desk.append_when(stop)
    left, entry = await desk.given_back()
    assert (left, entry.sends, entry.first_sent_at_ms) == (False, 0, None)


async def test_what_has_left_when_the_relay_is_cancelled_counts_as_sent(desk: Desk) -> None:
    loop = asyncio.get_running_loop()
    await desk.append_when(lambda: loop.call_soon(desk.running.cancel))
    left, entry = await desk.given_back()
    assert (left, entry.sends) == (True, 1)
    assert entry.first_sent_at_ms is not None
