"""Inngest is stopped again and again while it stores: everything is held, nothing runs twice."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.support.confirmed_delivery import append_events, self_hosted
from tests.support.fleet import environment, running
from tests.support.inngest_process import fake_inngest_process
from tests.support.outbox_command import outbox_json
from tests.support.storage import SqliteStorage

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

EVENTS = 20_000
STORE_RATE = 1_000
STOPS = [signal.SIGTERM, signal.SIGKILL] * 10
DOWN_SECONDS = 0.3


async def test_twenty_stops_amid_a_drain_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with SqliteStorage(path).open(max_pending=EVENTS, max_pending_per_user=EVENTS) as outbox:
        await asyncio.gather(*(append_events(outbox.intake, EVENTS // 100) for _ in range(100)))
    async with fake_inngest_process(tmp_path, rate=STORE_RATE) as inngest:
        settings = {
            **environment(f"sqlite:///{path}", ""),
            **self_hosted(inngest.url),
        }
        settings.pop("INNGEST_DEV")
        began, lost = time.monotonic(), 0
        async with running("serve", environment=settings):
            for number in STOPS:
                await stored_more(inngest, EVENTS // len(STOPS) // 2)
                lost += (await inngest.stats())["queued"]
                await inngest.stop(number)
                await asyncio.sleep(DOWN_SECONDS)
                await inngest.start()
            await delivered(path)
        seconds = time.monotonic() - began
        figures = await inngest.stats()
    print(f"\n20 stops: {EVENTS} in {seconds:.0f} s, lost by Inngest {lost}, {figures}")
    assert figures["storedIds"] == EVENTS
    assert figures["mostRunsOfAnId"] == 1
    assert lost > 0


async def stored_more(inngest, count: int) -> None:
    """Wait until Inngest has stored so many more, or everything."""
    stored = (await inngest.stats())["stored"]
    async with asyncio.timeout(60):
        while True:
            figures = await inngest.stats()
            if figures["stored"] >= min(stored + count, EVENTS):
                return
            await asyncio.sleep(0.05)


async def delivered(path: Path) -> None:
    async with asyncio.timeout(300):
        while (await outbox_json(path, "stats"))["delivered"] < EVENTS:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
