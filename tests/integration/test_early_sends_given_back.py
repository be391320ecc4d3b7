"""A claim that is given back in the turn of its commit: what may have left counts as sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from service.outbox.model import Batch, Entry
from service.outbox.sqlite.store import SqliteOutbox
from service.supervisor import end
from tests.support.early_relay import EarlyRelay, early_relay
from tests.support.storage import PATIENCE_SECONDS, ask, event


@dataclass
class Desk:
    outbox: SqliteOutbox
    work: EarlyRelay

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
        await self.work.server.until(lambda: bool(self.work.server.connections))
        for _ in range(10):
            await asyncio.sleep(0)
        passed.set()
        await appending

    async def given_back(self) -> tuple[bool, Entry]:
        """Whether any byte left, and the row as the next claim gets it."""
        [entry] = (await self.outbox.queue.claim(ask())).entries
        await end(self.work.running)
        await self.work.http.close()
        await self.work.server.until(lambda: self.work.server.connections[0].is_closed)
        return bool(self.work.server.received), entry


@pytest.fixture
async def desk(outbox: SqliteOutbox) -> AsyncIterator[Desk]:
    async with early_relay(outbox, drain_seconds=0.0) as work:
        yield Desk(outbox, work)


async def test_what_a_pause_gives_back_never_left(desk: Desk) -> None:
    def pause() -> None:  # as the breaker's exchange with the store does
        desk.work.relay._keeper.breaker = desk.work.relay.breaker.with_pause(paused=True)
        desk.work.relay._wake()

    await desk.append_when(pause)
    left, entry = await desk.given_back()
    assert (left, entry.sends, entry.first_sent_at_ms) == (False, 0, None)


async def test_what_a_stop_gives_back_never_left(desk: Desk) -> None:
    def stop() -> None:  # the first step of `Relay.stop`
        desk.work.relay._stopping = True
        desk.work.relay._wake()

    await desk.append_when(stop)
    left, entry = await desk.given_back()
    assert (left, entry.sends, entry.first_sent_at_ms) == (False, 0, None)


async def test_what_has_left_when_the_relay_is_cancelled_counts_as_sent(desk: Desk) -> None:
    loop = asyncio.get_running_loop()
    await desk.append_when(lambda: loop.call_soon(desk.work.running.cancel))
    left, entry = await desk.given_back()
    assert (left, entry.sends) == (True, 1)
    assert entry.first_sent_at_ms is not None
