"""The SQLite outbox on a disk that hangs: nobody waits for it, and what it took is counted."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.errors import OutboxUnavailableError
from service.outbox.model import Filter, State
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from service.outbox.sqlite.timings import WriterTimings
from tests.support.named_rows import named
from tests.support.posting import can_append
from tests.support.rows import bury
from tests.support.storage import (
    LIMITS,
    PATIENCE_SECONDS,
    append_all,
    claim,
    deliver,
    event,
    eventually,
)

SOON = WriterTimings(stall_seconds=0.1)
Hang = Callable[[], Awaitable[bool]]


@contextlib.contextmanager
def hanging_disk(outbox: SqliteOutbox) -> Iterator[Hang]:
    """A call that hangs until the end, and callers who are told soon.

    Before and after it the outbox is patient: a busy disk is slow, too.
    """
    released = threading.Event()
    patient = outbox.writer._timings
    outbox.writer._timings = outbox.writer.watchdog._timings = SOON
    try:
        yield lambda: outbox.writer.run(lambda _: released.wait(PATIENCE_SECONDS))
    finally:
        outbox.writer._timings = outbox.writer.watchdog._timings = patient
        released.set()


async def test_nobody_waits_for_a_disk_that_hangs(outbox: SqliteOutbox) -> None:
    sent = event()
    with capture_logs() as lines, hanging_disk(outbox) as hang:
        hanging = asyncio.ensure_future(hang())
        await asyncio.sleep(0)
        for _ in range(3):
            with pytest.raises(OutboxUnavailableError, match="does not answer"):
                await outbox.settings.save_scope("user", "u-1", {})
        with pytest.raises(OutboxUnavailableError):
            await outbox.intake.append(sent)
        hanging.cancel()
    with capture_logs() as later:
        await eventually(lambda: can_append(outbox))
    assert [line["event"] for line in lines] == ["not_writable"]
    assert [line["event"] for line in later] == ["writable_again"]
    assert outbox.undelivered == (await outbox.inspector.stats()).pending == 1


async def test_what_a_hanging_disk_took_after_all_is_counted(outbox: SqliteOutbox) -> None:
    """The caller was told that it is not known; it is stored, and delivered."""
    sent = event()
    with hanging_disk(outbox) as hang:
        answers = await asyncio.gather(hang(), outbox.intake.append(sent), return_exceptions=True)
    assert {type(answer) for answer in answers} == {OutboxUnavailableError}
    await eventually(lambda: can_append(outbox))
    assert await outbox.intake.find(sent.id)
    assert outbox.undelivered == (await outbox.inspector.stats()).pending == 2


async def test_what_operators_changed_on_a_hanging_disk_after_all_is_known(
    outbox: SqliteOutbox,
) -> None:
    await bury(outbox, 3)
    await append_all(outbox, 2)
    pending = await named(outbox.inspector, Filter(state=State.PENDING))
    dead = await named(outbox.inspector, Filter(state=State.DEAD))
    with hanging_disk(outbox) as hang:
        answers = await asyncio.gather(
            hang(),
            outbox.repairs.discard(pending, actor="ops"),
            outbox.repairs.replay(dead, actor="ops"),
            outbox.repairs.set_paused(paused=True, actor="ops"),
            outbox.settings.save_scope("user", "u-1", {}),
            return_exceptions=True,
        )
    assert {type(answer) for answer in answers} == {OutboxUnavailableError}
    await eventually(lambda: can_append(outbox))
    assert outbox.undelivered == (await outbox.inspector.stats()).pending == 4
    assert (await outbox.delivery.load()).paused_by == "ops"
    assert outbox.settings.scope_revision == 1


async def test_a_stop_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    timings = WriterTimings(stall_seconds=0.5)
    released = threading.Event()
    with contextlib.ExitStack() as disk:
        disk.callback(released.set)
        opening = open_sqlite_outbox(tmp_path / "other.db", **LIMITS, timings=timings)
        async with asyncio.timeout(PATIENCE_SECONDS / 2), opening as one:
            hanging = asyncio.ensure_future(one.writer.run(lambda _: released.wait()))
            await eventually(lambda: one.writer.watchdog.group)
            queued = asyncio.ensure_future(one.writer.run(lambda _: True))
            await asyncio.sleep(0)
        for future in (hanging, queued):
            with pytest.raises((OutboxUnavailableError, asyncio.CancelledError)):
                await future


async def test_a_settlement_that_is_repeated_after_a_hang_lost_no_lease(
    outbox: SqliteOutbox,
) -> None:
    await append_all(outbox, 3)
    batch = await claim(outbox)
    with hanging_disk(outbox) as hang:
        hanging = asyncio.ensure_future(hang())
        settled = asyncio.ensure_future(deliver(outbox, batch))
        with pytest.raises(OutboxUnavailableError):
            await settled
    await asyncio.gather(hanging, return_exceptions=True)
    await eventually(lambda: can_append(outbox))
    assert await deliver(outbox, batch) == 0
    assert await deliver(outbox, batch) == 3
