"""The figures of an outbox: how many rows are in each state, and how old the oldest is."""

from __future__ import annotations

import msgspec

from service.outbox.event import Meta
from service.outbox.model import Filter, Retry, Settlement
from tests.support.rows import one_of_each
from tests.support.storage import Outbox, append_all, claim, event


async def test_an_empty_outbox_has_empty_figures(outbox: Outbox) -> None:
    stats = await outbox.inspector.stats()
    assert (stats.pending, stats.delivering, stats.delivered, stats.dead) == (0, 0, 0, 0)
    assert (stats.oldest_pending_seconds, stats.oldest_due_seconds) == (None, None)
    assert await outbox.inspector.rows(Filter()) == []
    assert await outbox.inspector.audit(10) == []


async def test_figures_count_each_state(outbox: Outbox) -> None:
    await one_of_each(outbox)
    stats = await outbox.inspector.stats()
    assert (stats.pending, stats.delivering, stats.delivered, stats.dead) == (1, 1, 1, 1)
    assert stats.oldest_pending_seconds is not None
    assert stats.oldest_due_seconds is not None
    assert 0 <= stats.oldest_pending_seconds < 60
    assert stats.database_bytes


async def test_the_oldest_row_is_as_old_as_its_acceptance(outbox: Outbox) -> None:
    old = msgspec.structs.replace(event(), accepted_at_ms=event().accepted_at_ms - 60_000)
    await outbox.intake.append(old)
    await append_all(outbox, 2)
    stats = await outbox.inspector.stats()
    assert stats.oldest_pending_seconds is not None
    assert stats.oldest_due_seconds is not None
    assert 59 < stats.oldest_pending_seconds < 90
    assert 59 < stats.oldest_due_seconds < 90


async def test_a_row_that_is_delivering_is_still_due_and_not_delivered(outbox: Outbox) -> None:
    old = msgspec.structs.replace(event(), accepted_at_ms=event().accepted_at_ms - 60_000)
    await outbox.intake.append(old)
    await claim(outbox)
    stats = await outbox.inspector.stats()
    assert stats.oldest_pending_seconds is not None
    assert stats.oldest_due_seconds is not None
    assert stats.oldest_pending_seconds > 59
    assert stats.oldest_due_seconds > 59


async def test_a_delayed_row_waits_from_its_time_on(outbox: Outbox) -> None:
    now_ms = event().accepted_at_ms
    for due_at_ms in (now_ms + 3_600_000, now_ms - 30_000):
        delayed = msgspec.structs.replace(
            event(), accepted_at_ms=now_ms - 600_000, meta=Meta(due_at_ms=due_at_ms)
        )
        await outbox.intake.append(delayed)
        stats = await outbox.inspector.stats()
        assert stats.oldest_pending_seconds is not None
        assert stats.oldest_pending_seconds > 599
        if due_at_ms > now_ms:
            assert stats.oldest_due_seconds is None
    assert stats.oldest_due_seconds is not None
    assert 29 < stats.oldest_due_seconds < 60


async def test_a_row_between_two_tries_is_still_late(outbox: Outbox) -> None:
    old = msgspec.structs.replace(event(), accepted_at_ms=event().accepted_at_ms - 60_000)
    await outbox.intake.append(old)
    batch = await claim(outbox)
    again = Retry(batch.entries[0].seq, 5.0, 1, isolated=True, note="HTTP 503")
    await outbox.queue.settle(Settlement(batch.claim, retry=[again]))
    stats = await outbox.inspector.stats()
    assert stats.oldest_due_seconds is not None
    assert 59 < stats.oldest_due_seconds < 90
