"""The delivery as the store keeps it: over saves, pauses and restarts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from inngest_outbox.outbox.model import DeliveryRecord
from tests.support.storage import Outbox, Storage

pytestmark = pytest.mark.in_memory_too


BREAKER = DeliveryRecord(
    "backing_off",
    "HTTP 503",
    window=7,
    failures=3,
    reopens_in_seconds=20.0,
    since_ms=1_795_000_000_000,
    rate=12.5,
    destination="self-hosted",
    confirmation="on (self-hosted Inngest)",
)


async def test_a_saved_breaker_is_loaded_and_shown_as_it_was_saved(outbox: Outbox) -> None:
    record = await outbox.delivery.load()
    assert (record.state, record.paused_by, record.revision) == ("healthy", None, 0)
    saved = await outbox.delivery.save(BREAKER)
    loaded = await outbox.delivery.load()
    assert 15 < loaded.reopens_in_seconds <= 20
    assert loaded.revision == saved.revision > 0
    assert replace(loaded, reopens_in_seconds=20.0, revision=0) == BREAKER
    shown = (await outbox.inspector.stats()).delivery
    assert (shown.state, shown.reason) == ("backing_off", "HTTP 503")


async def test_the_breaker_survives_a_restart(storage: Storage) -> None:
    async with storage.open() as outbox:
        await outbox.delivery.save(BREAKER)
        await outbox.repairs.set_paused(paused=True, actor="ada")
    async with storage.open() as outbox:
        loaded = await outbox.delivery.load()
        assert (loaded.state, loaded.window, loaded.paused_by) == ("backing_off", 7, "ada")


async def test_a_pause_keeps_the_breaker_and_a_save_keeps_the_pause(outbox: Outbox) -> None:
    """Each raises the revision; a resume that asks now ends the wait."""
    first = await outbox.delivery.save(BREAKER)
    paused = await outbox.repairs.set_paused(paused=True, actor="ada", reason="upgrade")
    assert (paused.paused_by, paused.state, paused.window) == ("ada", "backing_off", 7)
    saved = await outbox.delivery.save(replace(BREAKER, state="healthy", paused_by=None))
    assert (saved.paused_by, saved.state, saved.pause_reason) == ("ada", "healthy", "upgrade")
    assert first.revision < paused.revision < saved.revision
    resumed = await outbox.repairs.set_paused(paused=False, actor="grace")
    assert (resumed.paused_by, resumed.state, resumed.pause_reason) == (None, "healthy", "")
    assert resumed.reopens_in_seconds > 0
    await outbox.delivery.save(BREAKER)
    resumed = await outbox.repairs.set_paused(paused=False, actor="ada", ask_now=True)
    assert (resumed.state, resumed.reopens_in_seconds) == ("backing_off", 0)
