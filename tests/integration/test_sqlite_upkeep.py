"""An SQLite outbox stays small: old rows, free pages, the write-ahead log."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sqlite3
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.sqlite import maintenance
from inngest_outbox.outbox.sqlite.file.disk import Disk
from inngest_outbox.outbox.sqlite.file.lock import WriterLock
from inngest_outbox.outbox.sqlite.file.log import PREALLOCATED_BYTES, WriteAheadLog
from inngest_outbox.outbox.sqlite.store import SqliteOutbox
from tests.support.storage import (
    PATIENCE_SECONDS,
    append_all,
    ask,
    claim,
    deliver,
    event,
    eventually,
)


@pytest.fixture(autouse=True)
def _maintained_by_the_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox's own task would come in between, on a machine that takes seconds for a test."""
    monkeypatch.setattr(maintenance, "_EVERY_SECONDS", 3600.0)


async def test_old_delivered_rows_go_and_their_space_comes_back(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    """Under constant load the log stays bounded."""
    path = tmp_path / "outbox.db"
    log, sizes = WriteAheadLog(path), set[int]()
    for _ in range(60):
        await asyncio.gather(*(outbox.intake.append(event(size=100_000)) for _ in range(5)))
        await deliver(outbox, await claim(outbox, ask(max_bytes=1 << 30)))
        await outbox.inspector.stats()
        sizes.add(log.size)
    assert sizes == {PREALLOCATED_BYTES}
    await outbox.maintenance.maintain()
    await outbox.maintenance.maintain()
    full = path.stat().st_size
    assert full > 25_000_000
    kept = await append_all(outbox, 1)
    assert await outbox.repairs.purge(older_than_seconds=-1, actor=None) == 300
    await outbox.maintenance.maintain()
    await outbox.maintenance.maintain()
    assert path.stat().st_size < full / 3
    assert (await outbox.intake.find(kept[0].id)) is not None
    assert await outbox.inspector.audit(10) == []


async def test_an_idle_outbox_cuts_a_large_log_and_a_reader_only_delays_that(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    log = WriteAheadLog(path)
    await append_all(outbox, 1)
    await outbox.writer.run(
        lambda writer: writer.execute("PRAGMA busy_timeout = 600000").fetchall()
    )
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM outbox").fetchall()
        for _ in range(20):
            await outbox.intake.append(event(size=1_000_000))
        await outbox.maintenance.maintain()
        async with asyncio.timeout(PATIENCE_SECONDS / 2):
            await outbox.maintenance.maintain()
        assert log.is_large
    await outbox.maintenance.maintain()
    assert log.size == PREALLOCATED_BYTES


async def test_what_is_erased_is_in_no_file_and_the_next_commit_is_patient_again(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    await outbox.scopes.save_scope("user", "u-9", {"street": "of nobody else"})
    await outbox.repairs.erase_records("u-9", actor="ops")
    files = [tmp_path / "outbox.db", tmp_path / "outbox.db-wal"]
    assert not any(b"of nobody else" in one.read_bytes() for one in files)
    patience = await outbox.writer.between_commits(
        lambda connection: connection.execute("PRAGMA busy_timeout").fetchall()
    )
    assert patience == [(1000,)]


async def test_a_disk_that_is_nearly_full_gets_a_large_log_back_at_once(
    outbox: SqliteOutbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"
    log = WriteAheadLog(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM outbox").fetchall()
        await asyncio.gather(*(outbox.intake.append(event(size=1_000_000)) for _ in range(20)))
    await outbox.maintenance.maintain()
    assert log.is_large
    await append_all(outbox, 1)
    monkeypatch.setattr(Disk, "is_short", lambda self: True)
    await outbox.maintenance.maintain()
    assert log.size == PREALLOCATED_BYTES


async def test_a_small_log_is_moved_when_idle_and_keeps_its_room(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    assert WriteAheadLog(path).size == PREALLOCATED_BYTES
    blocks = (tmp_path / "outbox.db-wal").stat().st_blocks
    assert blocks * 512 >= PREALLOCATED_BYTES  # really on the disk
    await append_all(outbox, 1)
    size = path.stat().st_size
    await outbox.intake.append(event(size=100_000))
    await outbox.maintenance.maintain()
    await outbox.maintenance.maintain()
    assert path.stat().st_size > size
    assert WriteAheadLog(path).size == PREALLOCATED_BYTES


async def test_a_reserve_that_is_missing_is_set_aside_again_when_there_is_room(
    outbox: SqliteOutbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"
    await outbox.maintenance.fill()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert WriteAheadLog(path).size == 0
    await append_all(outbox, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "is_short", lambda self: True)
        await outbox.maintenance.maintain()
        assert WriteAheadLog(path).size < PREALLOCATED_BYTES
    await outbox.maintenance.maintain()
    assert WriteAheadLog(path).size == PREALLOCATED_BYTES


@pytest.mark.faulty
async def test_the_log_is_filled_and_copied_by_itself_also_after_an_error(
    outbox: SqliteOutbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"
    monkeypatch.setattr(maintenance, "_EVERY_SECONDS", 0.01)
    errors = [ValueError("a bug"), ValueError("a bug"), OutboxUnavailableError("a fault")]
    keep_note = WriterLock.keep_note

    def faulty(lock: WriterLock) -> None:
        if errors:
            raise errors.pop()
        keep_note(lock)

    monkeypatch.setattr(WriterLock, "keep_note", faulty)
    await outbox.intake.append(event(size=100_000))
    size = path.stat().st_size
    running = asyncio.create_task(outbox.maintenance.run())
    await eventually(lambda: path.stat().st_size > size)
    running.cancel()
    assert not errors
    assert WriteAheadLog(path).size == PREALLOCATED_BYTES
    assert outbox.maintenance._filled_bytes == PREALLOCATED_BYTES


async def test_a_large_log_is_told_once_a_minute(
    outbox: SqliteOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(maintenance, "LARGE_LOG_BYTES", 1)
    monkeypatch.setattr(outbox.maintenance, "_clock", lambda: now[0])
    with capture_logs() as lines:
        for now[0] in (1.0, 59.0, 62.0):
            await outbox.maintenance.maintain()
    assert [line["event"] for line in lines] == ["write_ahead_log_is_large"] * 2


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions of the pieces that were filled, so far."""
    positions: list[int] = []
    fill = WriteAheadLog.fill

    def noting(log: WriteAheadLog, connection: sqlite3.Connection, at: int) -> int:
        positions.append(at)
        return fill(log, connection, at)

    monkeypatch.setattr(WriteAheadLog, "fill", noting)
    return positions


async def test_the_whole_log_is_filled_and_the_events_in_it_stay(
    outbox: SqliteOutbox, tmp_path: Path, filled: list[int]
) -> None:
    kept = await append_all(outbox, 5)
    await outbox.maintenance.fill()
    assert filled[-1] == PREALLOCATED_BYTES
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as other:
        rows = other.execute("SELECT event_id FROM outbox ORDER BY seq").fetchall()
    assert rows == [(event.id,) for event in kept]


async def test_a_log_of_a_nearly_full_disk_is_not_filled(
    outbox: SqliteOutbox, filled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Disk, "is_short", lambda _: True)
    filled.clear()  # a piece may have been begun before
    await outbox.maintenance.fill()
    assert filled == []


async def test_a_log_that_cant_be_written_is_left_as_it_is(
    outbox: SqliteOutbox, filled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        await outbox.maintenance.fill()
    assert filled[-1] < PREALLOCATED_BYTES
    await append_all(outbox, 1)
