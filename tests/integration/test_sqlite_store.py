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
from service.outbox.model import Filter
from service.outbox.sqlite.file.lock import writer_of
from service.outbox.sqlite.store import open_sqlite_outbox
from tests.support.delivery_world import Remembering
from tests.support.ended_threads import ended_threads
from tests.support.open_files import open_files
from tests.support.storage import LIMITS, PATIENT_WRITER, append_all, event

QUICK = replace(PATIENT_WRITER, probe_seconds=0.01)
KEY = IdempotencyKey("k", b"digest")


def tasks(name: str) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == name]


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
