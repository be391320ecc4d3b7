"""Inngest is stopped again and again while it stores: everything is held, nothing runs twice."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.support.confirmed_delivery import append_events, self_hosted_service
from tests.support.fleet import running
from tests.support.inngest_process import InngestProcess, fake_inngest_process
from tests.support.outbox_command import outbox_json
from tests.support.storage import PATIENCE_SECONDS, storage_at

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

EVENTS = 20_000
STORE_RATE = 1_000
STOPS = [signal.SIGTERM, signal.SIGKILL] * 10
DOWN_SECONDS = 0.3


async def test_twenty_stops_amid_a_drain_lose_nothing(tmp_path: Path, store_url: str) -> None:
    await filled(store_url, EVENTS)
    async with fake_inngest_process(tmp_path, rate=STORE_RATE) as inngest:
        began, lost = time.monotonic(), 0
        async with running("serve", environment=self_hosted_service(store_url, inngest.url)):
            for number in STOPS:
                await stored_more(inngest, EVENTS // len(STOPS) // 2, EVENTS)
                lost += (await inngest.stats())["queued"]
                await inngest.stop(number)
                await asyncio.sleep(DOWN_SECONDS)
                await inngest.start()
            await delivered(store_url, EVENTS)
        seconds = time.monotonic() - began
        figures = await inngest.stats()
    print(f"\n20 stops: {EVENTS} in {seconds:.0f} s, lost by Inngest {lost}, {figures}")
    assert figures["storedIds"] == EVENTS
    assert figures["mostRunsOfAnId"] == 1
    assert lost > 0


async def filled(url: str, events: int) -> None:
    opening = storage_at(url).open(max_pending=events, max_pending_per_user=events)
    async with opening as outbox:
        await asyncio.gather(*(append_events(outbox.intake, events // 100) for _ in range(100)))


async def stored_more(inngest: InngestProcess, count: int, most: int) -> None:
    """Wait until Inngest has stored so many more, or everything."""
    stored = (await inngest.stats())["stored"]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await inngest.stats())["stored"] < min(stored + count, most):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def delivered(url: str, events: int) -> None:
    async with asyncio.timeout(300):
        while (await outbox_json(url, "stats"))["delivered"] < events:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
