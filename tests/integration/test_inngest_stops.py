"""Inngest is stopped while it stores: the fake one, and a real one where INNGEST_BIN names it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inngest_outbox.outbox.model import Filter, State
from tests.support.confirmed_delivery import append_events, confirmed_delivery, self_hosted
from tests.support.inngest_process import (
    REAL,
    InngestProcess,
    fake_inngest_process,
    real_inngest_process,
)
from tests.support.outbox_command import outbox_command
from tests.support.storage import Outbox, eventually, storage_at

EVENTS = 300
_needs_real = pytest.mark.skipif(not REAL, reason="INNGEST_BIN names no Inngest server")


@pytest.fixture(params=["fake", pytest.param("real", marks=_needs_real)])
async def inngest(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[InngestProcess]:
    running = (
        real_inngest_process(tmp_path)
        if request.param == "real"
        else fake_inngest_process(tmp_path, rate=150)
    )
    async with running as process:
        yield process


async def states(outbox: Outbox, state: State) -> int:
    return len(await outbox.inspector.rows(Filter(state=state, limit=EVENTS)))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
async def test_what_a_stop_lost_is_held_in_the_end(
    store_url: str,
    inngest: InngestProcess,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with storage_at(store_url).open() as outbox:
        await append_events(outbox.intake, EVENTS)
        async with confirmed_delivery(outbox, inngest):
            await eventually(lambda: states(outbox, State.SENT), lambda sent: sent > 0)
            await inngest.stop(number)
            await asyncio.sleep(0.5)
            await inngest.start()
            await eventually(
                lambda: states(outbox, State.DELIVERED), lambda delivered: delivered == EVENTS
            )
    for name, value in self_hosted(inngest.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("INNGEST_DEV", raising=False)
    code, said, _ = await outbox_command(store_url, "verify")
    assert (code, f"{EVENTS:,} held" in said) == (0, True), said
