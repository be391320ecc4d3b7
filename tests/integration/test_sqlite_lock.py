"""One writing process for one file, whatever names the file has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.errors import OutboxBusyError, OutboxUnavailableError
from service.outbox.sqlite.lock import writer_of
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from service.outbox.sqlite.wal import PREALLOCATED_BYTES, WriteAheadLog


async def test_a_link_to_the_file_is_the_same_outbox(outbox: SqliteOutbox, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "outbox.db")
    assert (writer_of(link) or {})["pid"] == os.getpid()
    assert WriteAheadLog(link).size == PREALLOCATED_BYTES
    with pytest.raises(OutboxBusyError):
        async with open_sqlite_outbox(link, max_pending=9, max_pending_per_user=9):
            pass


async def test_a_file_with_two_names_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "outbox.db", tmp_path / "other.db"
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9):
        pass
    other.hardlink_to(path)
    for name in (path, other):
        with pytest.raises(OutboxUnavailableError, match="second name"):
            async with open_sqlite_outbox(name, max_pending=9, max_pending_per_user=9):
                pass
    other.unlink()
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9):
        pass
