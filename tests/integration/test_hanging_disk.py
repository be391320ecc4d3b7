"""The SQLite outbox on a disk that hangs: nobody waits for it, and what it took is counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.model import Filter, State
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from service.outbox.sqlite.timings import WriterTimings
from tests.support.posting import can_append
from tests.support.rows import bury
from tests.support.storage import append_all, claim, deliver, event, eventually

SOON = WriterTimings(stall_seconds=0.1)


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[SqliteOutbox]:
    limits = {"max_pending": 1000, "max_pending_per_user": 1000}
    async with open_sqlite_outbox(tmp_path / "outbox.db", **limits, timings=SOON) as outbox:
        yield outbox


@pytest.fixture
async def stuck(outbox: SqliteOutbox) -> AsyncIterator[threading.Event]:
    """The disk hangs until the event is set."""
    released = threading.Event()
    hanging = asyncio.ensure_future(outbox.jobs.run(lambda _: released.wait(20)))
    await asyncio.sleep(0)
    yield released
    released.set()
    await asyncio.gather(hanging, return_exceptions=True)


async def test_nobody_waits_for_a_disk_that_hangs(
    outbox: SqliteOutbox, stuck: threading.Event
) -> None:
    sent = event()
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(OutboxUnavailableError, match="does not answer"):
            await outbox.settings.save_scope("user", "u-1", {})
        assert time.monotonic() - began < 1
    with pytest.raises(OutboxUnavailableError):
        await outbox.intake.append(sent)
    stuck.set()
    await eventually(lambda: can_append(outbox))
    assert outbox.undelivered == (await outbox.inspector.stats()).pending == 1


async def test_what_a_hanging_disk_took_after_all_is_counted(
    outbox: SqliteOutbox, stuck: threading.Event
) -> None:
    """The caller was told that it is not known; it is stored, and delivered."""
    await asyncio.sleep(0)
    appended = asyncio.create_task(outbox.intake.append(event()))
    with pytest.raises(OutboxUnavailableError):
        await appended
    stuck.set()
    await eventually(lambda: can_append(outbox))
    stats = await outbox.inspector.stats()
    assert outbox.undelivered == stats.pending


async def test_what_operators_changed_on_a_hanging_disk_after_all_is_known(
    outbox: SqliteOutbox,
) -> None:
    await bury(outbox, 3)
    await append_all(outbox, 2)
    released = threading.Event()
    answers = await asyncio.gather(
        outbox.jobs.run(lambda _: released.wait(20)),
        outbox.repairs.discard(Filter(state=State.PENDING), actor="ops"),
        outbox.repairs.replay(Filter(), actor="ops"),
        outbox.repairs.set_paused(paused=True, actor="ops"),
        outbox.settings.save_scope("user", "u-1", {}),
        return_exceptions=True,
    )
    assert {type(answer) for answer in answers} == {OutboxUnavailableError}
    released.set()
    await eventually(lambda: can_append(outbox))
    assert outbox.undelivered == (await outbox.inspector.stats()).pending == 4
    assert (await outbox.delivery.load()).paused_by == "ops"
    assert outbox.settings.scope_revision == 1


async def test_a_stop_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    released = threading.Event()
    path = tmp_path / "other.db"
    began = time.monotonic()
    try:
        async with open_sqlite_outbox(
            path, max_pending=9, max_pending_per_user=9, timings=SOON
        ) as outbox:
            hanging = asyncio.ensure_future(outbox.jobs.run(lambda _: released.wait(20)))
            await eventually(lambda: asyncio.sleep(0, outbox.writer.watchdog.group))
            queued = asyncio.ensure_future(outbox.jobs.run(lambda _: True))
            await asyncio.sleep(0)
        for future in (hanging, queued):
            with pytest.raises((OutboxUnavailableError, asyncio.CancelledError)):
                await future
        assert time.monotonic() - began < 10
    finally:
        released.set()


async def test_a_settlement_that_is_repeated_after_a_hang_lost_no_lease(
    outbox: SqliteOutbox,
) -> None:
    await append_all(outbox, 3)
    batch = await claim(outbox)
    released = threading.Event()
    hanging = asyncio.ensure_future(outbox.jobs.run(lambda _: released.wait(20)))
    settled = asyncio.ensure_future(deliver(outbox, batch))
    with pytest.raises(OutboxUnavailableError):
        await settled
    released.set()
    await asyncio.gather(hanging, return_exceptions=True)
    await eventually(lambda: can_append(outbox))
    assert await deliver(outbox, batch) == 0
    assert await deliver(outbox, batch) == 3
