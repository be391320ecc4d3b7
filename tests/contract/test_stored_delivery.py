"""The delivery as the store keeps it: over saves, pauses and restarts."""

from __future__ import annotations

import pytest

from service.outbox.model import DeliveryRecord
from tests.support.storage import Outbox, Storage

pytestmark = pytest.mark.in_memory_too


def breaker(**changes: object) -> DeliveryRecord:
    wanted = {
        "state": "backing_off",
        "reason": "HTTP 503",
        "window": 7,
        "failures": 3,
        "reopens_in_seconds": 20.0,
        "since_ms": 1_795_000_000_000,
        "rate": 12.5,
        "destination": "self-hosted",
        "confirmation": "on (self-hosted Inngest)",
        **changes,
    }
    return DeliveryRecord(**wanted)


async def test_a_new_breaker_is_open(outbox: Outbox) -> None:
    record = await outbox.delivery.load()
    assert record is None or (record.state, record.paused_by, record.revision) == (
        "healthy",
        None,
        0,
    )


async def test_a_saved_breaker_is_loaded_as_it_was_saved(outbox: Outbox) -> None:
    saved = await outbox.delivery.save(breaker())
    loaded = await outbox.delivery.load()
    assert loaded is not None
    assert (loaded.state, loaded.reason, loaded.window, loaded.failures) == (
        "backing_off",
        "HTTP 503",
        7,
        3,
    )
    assert (loaded.since_ms, loaded.rate) == (1_795_000_000_000, 12.5)
    told = (loaded.destination, loaded.confirmation)
    assert told == ("self-hosted", "on (self-hosted Inngest)")
    assert 15 < loaded.reopens_in_seconds <= 20
    assert loaded.revision == saved.revision


async def test_the_breaker_survives_a_restart(storage: Storage) -> None:
    async with storage.open() as outbox:
        await outbox.delivery.save(breaker())
        await outbox.repairs.set_paused(paused=True, actor="ada")
    async with storage.open() as outbox:
        loaded = await outbox.delivery.load()
        assert loaded is not None
        assert (loaded.state, loaded.window, loaded.paused_by) == ("backing_off", 7, "ada")


async def test_every_save_raises_the_revision(outbox: Outbox) -> None:
    first = await outbox.delivery.save(breaker())
    second = await outbox.delivery.save(breaker(window=8))
    third = await outbox.repairs.set_paused(paused=True, actor="ada")
    assert first.revision < second.revision < third.revision


async def test_a_pause_keeps_the_breaker_and_a_save_keeps_the_pause(outbox: Outbox) -> None:
    await outbox.delivery.save(breaker())
    paused = await outbox.repairs.set_paused(paused=True, actor="ada", reason="upgrade")
    assert (paused.paused_by, paused.state, paused.window) == ("ada", "backing_off", 7)
    saved = await outbox.delivery.save(breaker(state="healthy", paused_by=None))
    assert (saved.paused_by, saved.state, saved.pause_reason) == ("ada", "healthy", "upgrade")
    resumed = await outbox.repairs.set_paused(paused=False, actor="grace")
    assert (resumed.paused_by, resumed.state, resumed.pause_reason) == (None, "healthy", "")
    assert resumed.reopens_in_seconds > 0


async def test_a_resume_that_asks_now_ends_the_wait(outbox: Outbox) -> None:
    await outbox.delivery.save(breaker())
    resumed = await outbox.repairs.set_paused(paused=False, actor="ada", ask_now=True)
    assert (resumed.state, resumed.reopens_in_seconds) == ("backing_off", 0)


async def test_the_figures_show_the_breaker(outbox: Outbox) -> None:
    await outbox.delivery.save(breaker())
    shown = (await outbox.inspector.stats()).delivery
    assert shown is not None
    assert (shown.state, shown.reason) == ("backing_off", "HTTP 503")
