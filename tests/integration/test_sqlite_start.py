"""The start of an SQLite outbox on a disk that fails, beside a command, and with earlier rows."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from inngest_outbox.errors import OutboxFullError, OutboxUnavailableError
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.sqlite import store
from inngest_outbox.outbox.sqlite.commit import SqliteCommits
from inngest_outbox.outbox.sqlite.file.disk import Disk
from inngest_outbox.outbox.sqlite.file.log import WriteAheadLog
from inngest_outbox.outbox.sqlite.state import BytesCount
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.sqlite_faults import fault, sqlite_error
from tests.support.storage import LIMITS, PATIENT_WRITER, append_all, event, eventually

QUICK = replace(PATIENT_WRITER, probe_seconds=0.01)
KEY = IdempotencyKey("k", bytes(32))


class FailingDisk:
    """Opening fails with `error` until it is None; `is_short` is what the disk says."""

    def __init__(self) -> None:
        self.error: OutboxUnavailableError | None = fault("SQLITE_FULL")
        self.is_short = False


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    made, opening = FailingDisk(), SqliteCommits.open

    async def opened(commits: SqliteCommits) -> None:
        if made.error:
            raise made.error
        await opening(commits)

    monkeypatch.setattr(SqliteCommits, "open", opened)
    monkeypatch.setattr(Disk, "is_short", lambda _: made.is_short)
    return made


async def stored_before(path: Path, disk: FailingDisk) -> str:
    """An outbox at rest with one event under KEY; its id."""
    failing, disk.error = disk.error, None
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        receipt = await outbox.intake.append(event(), key=KEY)
    disk.error = failing
    return receipt.event_id


@pytest.mark.parametrize("code", ["SQLITE_FULL", "SQLITE_IOERR_FSYNC"])
async def test_a_disk_that_is_full_or_fails_is_waited_for(
    path: Path, disk: FailingDisk, code: str
) -> None:
    disk.error = fault(code)
    known = await stored_before(path, disk)
    async with open_sqlite_outbox(path, **LIMITS, timings=QUICK) as outbox:
        assert code in str(outbox.failure)
        with pytest.raises(OutboxUnavailableError):
            await outbox.intake.append(event())
        assert (await outbox.intake.append(event(), key=KEY)).event_id == known
        disk.error = None
        await eventually(lambda: outbox.failure is None)
        assert outbox.undelivered == 1
        await append_all(outbox, 1)


async def test_a_killed_row_is_answered_again_only_once_its_log_is_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = path.with_name("killed.db")
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        known = (await outbox.intake.append(event(), key=KEY)).event_id
        for end in ("", "-wal"):
            shutil.copyfile(f"{path}{end}", f"{killed}{end}")
    with monkeypatch.context() as disk:
        disk.setattr(WriteAheadLog, "make_durable", fails_to_sync)
        async with open_sqlite_outbox(killed, **LIMITS, timings=QUICK) as outbox:
            with pytest.raises(OutboxUnavailableError):
                await outbox.intake.append(event(), key=KEY)
    async with open_sqlite_outbox(killed, **LIMITS) as outbox:
        assert (await outbox.intake.append(event(), key=KEY)).event_id == known


def fails_to_sync(_: WriteAheadLog) -> None:
    raise fault("SQLITE_IOERR_FSYNC")


def leave_half_copied(path: Path, left: Path) -> None:
    """Copy an outbox that runs as a kill amid a checkpoint leaves it: page 1 is copied alone."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    page_bytes = int.from_bytes(log[8:12])
    file = bytearray(path.read_bytes())
    for at in range(32, len(log), 24 + page_bytes):
        if int.from_bytes(log[at : at + 4]) == 1:
            file[:page_bytes] = log[at + 24 : at + 24 + page_bytes]
    left.write_bytes(file)
    left.with_name(f"{left.name}-wal").write_bytes(log)


async def test_a_file_half_copied_from_its_log_is_read_with_it_on_a_full_disk(
    path: Path, disk: FailingDisk
) -> None:
    left = path.with_name("left.db")
    disk.error = None
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        for _ in range(3):
            await outbox.intake.append(event(size=50_000))
        leave_half_copied(path, left)
    disk.error = fault("SQLITE_FULL")
    async with open_sqlite_outbox(left, **LIMITS, timings=QUICK) as outbox:
        assert "SQLITE_FULL" in str(outbox.failure)
        disk.error = None
        await eventually(lambda: outbox.failure is None)
        assert outbox.undelivered == 3


async def refuses(path: Path, code: str) -> None:
    with pytest.raises(OutboxUnavailableError, match=code):
        async with open_sqlite_outbox(path, **LIMITS, timings=QUICK):
            raise AssertionError


async def test_another_error_ends_the_start_unless_the_disk_is_short(
    path: Path, disk: FailingDisk
) -> None:
    disk.error = fault("SQLITE_NOTADB")
    await stored_before(path, disk)
    await refuses(path, "SQLITE_NOTADB")
    disk.is_short = True
    async with open_sqlite_outbox(path, **LIMITS, timings=QUICK) as outbox:
        assert "SQLITE_NOTADB" in str(outbox.failure)


async def test_a_new_outbox_is_not_begun_on_a_full_disk(path: Path, disk: FailingDisk) -> None:
    await refuses(path, "SQLITE_FULL")
    disk.is_short = True
    await refuses(path, "SQLITE_FULL")
    disk.error = None
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert outbox.undelivered == 0


class Pages:
    """The pages of one row that were counted, the pauses between them, and their errors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.errors: list[Exception] = []
        counting = BytesCount.count_page

        def count_page(self_: BytesCount, *args: object) -> dict[str, int]:
            self.told.append("page")
            if self.errors:
                raise self.errors.pop()
            return counting(self_, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(BytesCount, "count_page", count_page)
        monkeypatch.setattr(store, "BytesCount", lambda: BytesCount(page_rows=1))
        monkeypatch.setattr(store, "asyncio", self)
        self.to_thread, self.create_task = asyncio.to_thread, asyncio.create_task

    async def sleep(self, seconds: float) -> None:
        assert seconds == store._BYTES_PAUSE_SECONDS
        self.told.append("pause")
        await asyncio.sleep(0)


@pytest.fixture
async def filled(path: Path) -> Path:
    """An outbox at rest with 3 events of 1000 bytes."""
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        for _ in range(3):
            await outbox.intake.append(event(size=1000))
    return path


async def counted() -> bool:
    """Whether the count of earlier bytes has ended."""
    return not any(task.get_name() == "outbox-bytes" for task in asyncio.all_tasks())


def opened(path: Path) -> contextlib.AbstractAsyncContextManager[SqliteOutbox]:
    return open_sqlite_outbox(path, **LIMITS, max_bytes=3500, timings=QUICK)


async def test_earlier_bytes_are_counted_a_page_at_a_time(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(monkeypatch)
    async with opened(filled) as outbox:
        await eventually(counted)
        assert pages.told == ["page", "pause"] * 3
        with pytest.raises(OutboxFullError):
            await outbox.intake.append(event(size=501))
        await outbox.intake.append(event(size=500))


async def test_rows_that_came_after_the_start_are_not_counted_again(filled: Path) -> None:
    pages = BytesCount(page_rows=4)
    with contextlib.closing(sqlite3.connect(filled)) as connection:
        pages.begin(connection)
        async with open_sqlite_outbox(filled, **LIMITS) as outbox:
            await outbox.intake.append(event("bob"))
        assert pages.count_page(connection) == {"u-1": 3000}
    assert pages.is_done


async def test_a_page_that_can_not_be_read_now_is_counted_later(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(monkeypatch)
    pages.errors = [sqlite_error("SQLITE_BUSY")]
    async with opened(filled) as outbox:
        await eventually(counted)
        assert pages.told.count("page") == 4
        await eventually(lambda: outbox.failure is None)
        with pytest.raises(OutboxFullError):
            await outbox.intake.append(event(size=501))


async def test_a_page_that_is_damaged_ends_the_count_and_is_told(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(monkeypatch)
    pages.errors = [sqlite_error("SQLITE_CORRUPT")]
    async with opened(filled) as outbox:
        await eventually(counted)
        assert pages.told == ["page"]
        assert "damaged" in str(outbox.failure)
