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
from service.outbox.sqlite import writer as sqlite_writer
from service.outbox.sqlite.changes import Write
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.posting import can_append
from tests.support.rows import bury
from tests.support.storage import append_all, event, eventually


@pytest.fixture
async def stuck(
    outbox: SqliteOutbox, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[threading.Event]:
    """The disk hangs until the event is set."""
    monkeypatch.setattr(sqlite_writer, "STUCK_SECONDS", 0.1)
    released = threading.Event()
    hanging = outbox.writer.submit(outbox._writes, Write(lambda _: released.wait(20)))
    hanging.add_done_callback(lambda done: done.cancelled() or done.exception())
    yield released
    released.set()


async def test_nobody_waits_for_a_disk_that_hangs(
    outbox: SqliteOutbox, stuck: threading.Event
) -> None:
    sent = event()
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(OutboxUnavailableError, match="does not answer"):
            await outbox.save_scope("user", "u-1", {})
        assert time.monotonic() - began < 1
    with pytest.raises(OutboxUnavailableError):
        await outbox.append(sent)
    stuck.set()
    await eventually(lambda: can_append(outbox))
    assert outbox.undelivered == (await outbox.stats()).pending == 1


async def test_what_a_hanging_disk_took_after_all_is_counted(
    outbox: SqliteOutbox, stuck: threading.Event
) -> None:
    """The caller was told that it is not known; it is stored, and delivered."""
    await asyncio.sleep(0)
    appended = asyncio.create_task(outbox.append(event()))
    with pytest.raises(OutboxUnavailableError):
        await appended
    stuck.set()
    await eventually(lambda: can_append(outbox))
    stats = await outbox.stats()
    assert outbox.undelivered == stats.pending


async def test_what_operators_changed_on_a_hanging_disk_after_all_is_known(
    outbox: SqliteOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(outbox, 3)
    await append_all(outbox, 2)
    monkeypatch.setattr(sqlite_writer, "STUCK_SECONDS", 0.1)
    released = threading.Event()
    answers = await asyncio.gather(
        outbox._write(lambda _: released.wait(20)),
        outbox.discard(Filter(state=State.PENDING), actor="ops"),
        outbox.replay(Filter(), actor="ops"),
        outbox.set_paused(paused=True, actor="ops"),
        outbox.save_scope("user", "u-1", {}),
        return_exceptions=True,
    )
    assert {type(answer) for answer in answers} == {OutboxUnavailableError}
    released.set()
    await eventually(lambda: can_append(outbox))
    assert outbox.undelivered == (await outbox.stats()).pending == 4
    assert (await outbox.load_delivery()).paused_by == "ops"
    assert outbox.scope_revision == 1


async def test_a_stop_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "STUCK_SECONDS", 0.1)
    released = threading.Event()
    path = tmp_path / "other.db"
    began = time.monotonic()
    try:
        async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
            hanging = outbox.writer.submit(outbox._writes, Write(lambda _: released.wait(20)))
            queued = outbox.writer.submit(outbox._writes, Write(lambda _: True))
            await asyncio.sleep(0.05)
        for future in (hanging, queued):
            with pytest.raises((OutboxUnavailableError, asyncio.CancelledError)):
                await future
        assert time.monotonic() - began < 10
    finally:
        released.set()
