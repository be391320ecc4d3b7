"""An SQLite outbox as a whole: how it opens, purges, where it lies, and what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inngest_outbox.errors import OutboxBusyError, OutboxFullError, TooManyPendingError
from inngest_outbox.outbox.limits import FairShare
from inngest_outbox.outbox.model import Filter
from inngest_outbox.outbox.sqlite.file import disk as volume
from inngest_outbox.outbox.sqlite.file.disk import loss_of_volume
from inngest_outbox.outbox.sqlite.file.lock import _WANTED_BYTE, writer_of
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.delivery_world import Remembering
from tests.support.ended_threads import ended_threads
from tests.support.open_files import open_files
from tests.support.storage import (
    LIMITS,
    PATIENT_WRITER,
    append_all,
    ask,
    claim,
    deliver,
    event,
)


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
    recorder = Remembering()
    async with open_sqlite_outbox(
        path,
        max_pending=9,
        max_pending_per_user=9,
        max_bytes=5000,
        max_bytes_per_user=3000,
        socket="/run/a.sock",
        recorder=recorder,
        timings=PATIENT_WRITER,
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
    assert recorder.counted["accepted"] == 5


ROWS = 1200


async def fill(outbox: SqliteOutbox, rows: int, size: int) -> None:
    await asyncio.gather(*(outbox.intake.append(event(size=size)) for _ in range(rows)))
    for _ in range(rows // 400):
        await deliver(outbox, await claim(outbox, ask(400, max_bytes=1 << 30)))


@contextlib.contextmanager
def wanted(path: Path) -> Iterator[None]:
    """A service that starts on the file, and waits for its lock."""
    descriptor = os.open(path, os.O_RDWR)
    flock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _WANTED_BYTE, 1, 0) + bytes(4)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, flock)
    try:
        yield
    finally:
        os.close(descriptor)


def free_pages(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute("PRAGMA freelist_count").fetchall()[0][0])


async def test_a_purge_commits_at_most_500_rows_at_once_makes_way_and_notes_what_it_removed(
    tmp_path: Path,
) -> None:
    """So that neither posts nor a service that starts wait for more than that."""
    path = tmp_path / "outbox.db"
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await fill(outbox, ROWS, 200)
        page, sizes = outbox.purger.purge_page, list[int]()
        with contextlib.ExitStack() as stack:

            async def watched(after_seq: int, older_than_seconds: float) -> Any:
                before = outbox.commits.count
                ended = await page(after_seq, older_than_seconds)
                assert outbox.commits.count - before <= 1
                sizes.append(ended.removed)
                if len(sizes) == 1:
                    stack.enter_context(wanted(path))
                return ended

            outbox.purger.purge_page = watched  # type: ignore[method-assign]
            with pytest.raises(OutboxBusyError, match="A service is starting"):
                await outbox.repairs.purge(older_than_seconds=-1, actor="ada")
        assert (await outbox.inspector.stats()).delivered == ROWS - 500
        assert [one.detail for one in await outbox.inspector.audit(9)] == ["delivered rows: 500"]
        assert await outbox.repairs.purge(older_than_seconds=-1, actor="ada") == ROWS - 500
        assert sizes == [500, 500, 200, 0]


async def test_a_purge_leaves_the_free_space_to_a_service_that_waits(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await fill(outbox, 400, 40_000)
        after, removed = await outbox.purger.purge_page(0, -1)
        assert 50 < removed < 60  # more would fill a disk that is nearly full with the log
        while after is not None:
            after, _ = await outbox.purger.purge_page(after, -1)
        free = free_pages(path)
        assert free > 3000
        with wanted(path):
            await outbox.purger.purge_ended(400, "ada")
        assert free_pages(path) == free
        await outbox.purger.purge_ended(400, "ada")
        assert free_pages(path) < 1000


def test_a_volume_is_looked_up_in_the_list_of_the_mounts_where_a_link_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts, link = tmp_path / "mountinfo", tmp_path / "outbox.db"
    monkeypatch.setattr(volume, "MOUNTS", mounts)
    link.symlink_to("/srv/far/outbox.db")
    assert loss_of_volume(link) is None  # a system that lists no mounts
    mounts.write_bytes(
        b"530 511 0:70 / /srv/far rw - tmpfs tmpfs rw\n"
        b"530 511 0:70 / /srv/caf\xe9 rw - tmpfs none rw\n"
    )
    assert "in memory" in str(loss_of_volume(link))
    assert "in memory" in str(loss_of_volume(Path("/srv/caf\udce9/outbox.db")))
    assert loss_of_volume(Path("/srv/caf\xe9/outbox.db")) is None
