"""An SQLite outbox as a whole: how it opens, what each of its parts is for, what it leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import OutboxFullError, TooManyPendingError
from service.outbox.keys import IdempotencyKey
from service.outbox.limits import FairShare
from service.outbox.model import Filter, Named, Settlement, State
from service.outbox.sqlite.file.lock import writer_of
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.delivery_world import Remembering
from tests.support.ended_threads import ended_threads
from tests.support.open_files import open_files
from tests.support.storage import LIMITS, PATIENT_WRITER, append_all, ask, claim, event, ids

QUICK = replace(PATIENT_WRITER, probe_seconds=0.01)
KEY = IdempotencyKey("k", b"digest")


def tasks(name: str) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == name]


async def test_an_outbox_takes_delivers_and_shows_events(outbox: SqliteOutbox) -> None:
    assert outbox.failure is None
    first, second, third = await append_all(outbox, 3)
    assert outbox.undelivered == 3
    batch = await claim(outbox, ask(2))
    assert ids(batch) == [first.id, second.id]
    await outbox.queue.settle(Settlement(batch.claim, sent=[1], delivered=[2]))
    assert outbox.undelivered == 1
    assert await outbox.confirmations.count_sent() == 1
    assert [row.id for row in await outbox.inspector.rows(Filter(state=State.PENDING))] == [
        third.id
    ]
    assert await outbox.positions.reach(None, 1) is not None
    assert await outbox.repairs.discard(Named((third.id,)), actor="ada") == [third.id]
    assert outbox.undelivered == 0
    await outbox.repairs.set_paused(actor="ada", paused=True)
    assert (await outbox.delivery.load()).paused_by == "ada"
    assert await outbox.repairs.purge(older_than_seconds=-60, actor=None) == 1
    await outbox.trail.record("look", actor="ada", event_id=first.id, detail="")
    assert [act.action for act in await outbox.inspector.audit(1)] == ["look"]
    await outbox.settings.save_scope("user", "u-1", {"a": 1})
    assert await outbox.settings.load_scope("user", "u-1") == {"a": 1}
    assert await outbox.samples.between(0, 1) == []
    assert outbox.recovery.claimed == 0
    assert (await outbox.inspector.stats()).database_bytes


async def test_what_an_earlier_process_left_is_known_at_once(path: Path) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        events = await append_all(outbox, 3)
        await claim(outbox, ask(2))
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert (outbox.undelivered, outbox.recovery.claimed) == (3, 2)
        assert ids(await claim(outbox)) == [one.id for one in events]


class BodyError(Exception):
    """What fails inside."""


async def fails_inside(path: Path) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await append_all(outbox, 1)
        assert await outbox.inspector.count(Filter()) == 1
        assert len(tasks("outbox-writer")) == len(tasks("outbox-maintenance")) == 1
        assert open_files(path)
        raise BodyError


async def test_an_outbox_leaves_no_task_no_thread_and_no_file(path: Path) -> None:
    async with ended_threads():
        with pytest.raises(BodyError):
            await fails_inside(path)
        for name in ("outbox-writer", "outbox-maintenance", "outbox-bytes"):
            assert tasks(name) == []
        assert open_files(path) == []
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert outbox.undelivered == 1


async def test_an_outbox_uses_what_it_is_given(path: Path) -> None:
    recorder, asked = Remembering(), []

    def clock() -> float:
        asked.append("the time")
        return 0.0

    async with open_sqlite_outbox(
        path,
        max_pending=9,
        max_pending_per_user=9,
        max_bytes=5000,
        max_bytes_per_user=3000,
        socket="/run/a.sock",
        recorder=recorder,
        timings=replace(PATIENT_WRITER, clock=clock),
        fair_share=FairShare(noisy_rows=2),
    ) as outbox:
        assert (writer_of(path) or {})["socket"] == "/run/a.sock"
        await append_all(outbox, 3)
        await append_all(outbox, 1, "u-2")
        assert outbox.claims.picker.may_have_fair_share
        with pytest.raises(TooManyPendingError, match="bytes"):
            await outbox.intake.append(event("u-3", size=3001))
        await outbox.intake.append(event("u-3", size=3000))
        with pytest.raises(OutboxFullError):
            await outbox.intake.append(event("u-4", size=1500))
    assert asked
    assert recorder.counted["accepted"] == 5
