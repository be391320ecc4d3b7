"""The room of the write-ahead log is written once, so that a sync need not note new blocks."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path

import pytest

from service.outbox.sqlite import maintenance
from service.outbox.sqlite.file.log import PREALLOCATED_BYTES, WriteAheadLog
from service.outbox.sqlite.store import SqliteOutbox
from tests.support.storage import append_all


@pytest.fixture(autouse=True)
def _maintained_by_the_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox's own task would come in between, on a machine that takes seconds for a test."""
    monkeypatch.setattr(maintenance, "_EVERY_SECONDS", 3600.0)


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


async def test_a_log_that_was_emptied_is_filled_again(
    outbox: SqliteOutbox, tmp_path: Path, filled: list[int]
) -> None:
    await outbox.maintenance.fill()
    filled.clear()
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    await outbox.maintenance.maintain()
    await outbox.maintenance.fill()
    assert 0 in filled
    assert filled[-1] == PREALLOCATED_BYTES


async def test_a_log_of_a_nearly_full_disk_is_not_filled(
    outbox: SqliteOutbox, filled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbox.sqlite.file.disk.Disk.is_short", lambda _: True)
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
