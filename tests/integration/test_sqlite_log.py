"""The log of an SQLite outbox: copied by the service alone, and known by the file it belongs to."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.file import log
from service.outbox.sqlite.file.backup import back_up
from service.outbox.sqlite.file.log import WriteAheadLog
from service.outbox.sqlite.file.recover import recover
from service.outbox.sqlite.recovery import check_log
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.storage import LIMITS, append_all, ask, event, eventually

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from service.outbox.sqlite.store import open_sqlite_outbox
from tests.support.storage import LIMITS, append_all

async def main():
    async with open_sqlite_outbox(Path(sys.argv[1]), **LIMITS) as outbox:
        await append_all(outbox, int(sys.argv[2]))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def killed(path: Path, events: int = 5) -> Path:
    """An outbox whose process was killed; its log."""
    code = subprocess.run([sys.executable, "-c", KILLED, str(path), str(events)], check=False)
    assert code.returncode == -signal.SIGKILL
    return path.with_name(f"{path.name}-wal")


async def pending(path: Path, *, accepts_loss: bool = False) -> int:
    async with open_sqlite_outbox(path, **LIMITS, accepts_loss=accepts_loss) as outbox:
        return (await outbox.inspector.stats()).pending


def content(path: Path) -> bytes:
    return path.read_bytes()


def pages(path: Path) -> int:
    """How large the database is without its log."""
    return path.stat().st_size // 4096


async def test_a_long_log_is_copied_after_the_commits_that_filled_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "CHECKPOINT_FRAMES", 60)
    syncs: list[int] = []
    sync = log._sync

    def noted(file: int) -> None:
        syncs.append(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(log, "_sync", noted)
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        before, after_start = pages(path), len(syncs)
        for _ in range(40):
            await outbox.intake.append(event(size=8000))
        await eventually(lambda: _soon(len(syncs) > after_start))
        assert pages(path) > before
        assert set(syncs[after_start:]) == {path.with_name("outbox.db-wal").stat().st_ino}
        assert WriteAheadLog(path).size == log.PREALLOCATED_BYTES


async def test_no_connection_copies_the_log_by_itself(outbox: SqliteOutbox) -> None:
    def asked(connection: sqlite3.Connection) -> object:
        return connection.execute("PRAGMA wal_autocheckpoint").fetchall()

    assert await outbox.writer.between_commits(asked) == [(0,)]
    assert await outbox.inspector._reads.run(asked) == [(0,)]


async def test_a_sync_of_the_log_that_fails_at_a_copy_refuses_until_the_log_is_renewed(
    outbox: SqliteOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append_all(outbox, 3)
    sync, failures = log._sync, [OSError(5, "Input/output error")]

    def failing(file: int) -> None:
        if failures:
            raise failures.pop()
        sync(file)

    renewed: list[bool] = []
    renew = WriteAheadLog.renew
    monkeypatch.setattr(
        WriteAheadLog, "renew", lambda *args: (renewed.append(True), renew(*args))[1]
    )
    monkeypatch.setattr(log, "_sync", failing)
    with pytest.raises(OutboxUnavailableError, match="disk of the outbox failed"):
        await outbox.writer.between_commits(outbox.commits.log.checkpoint)
    assert "disk of the outbox failed" in str(outbox.failure)
    await eventually(lambda: _soon(outbox.failure is None))
    assert renewed == [True]
    await append_all(outbox, 1)
    assert (await outbox.inspector.stats()).pending == 4


async def test_a_killed_outbox_starts_with_its_log_and_a_stopped_one_needs_none(path: Path) -> None:
    killed(path)
    assert await pending(path) == 5
    assert not path.with_name("outbox.db-wal").exists()
    assert await pending(path) == 5


async def test_a_killed_outbox_without_its_log_starts_only_when_told_so(path: Path) -> None:
    killed(path).unlink()
    path.with_name("outbox.db-shm").unlink()
    before = content(path)
    for _ in range(2):
        with pytest.raises(OutboxUnavailableError, match=r"without its log.*--accept-loss"):
            await pending(path)
    assert content(path) == before
    assert await pending(path, accepts_loss=True) == 0
    assert await pending(path) == 0


async def test_the_log_of_another_file_is_refused_and_set_aside_when_told_so(
    path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    foreign, own = killed(other, 7), killed(path)
    shutil.copy(foreign, own)
    path.with_name("outbox.db-shm").unlink()
    with pytest.raises(OutboxUnavailableError, match="belongs to another file"):
        await pending(path)
    with capture_logs() as said:
        assert await pending(path, accepts_loss=True) == 0
    assert [line["event"] for line in said].count("log_set_aside") == 1
    assert path.with_name("outbox.db-wal.set-aside").exists()
    assert await pending(other) == 7


def restored(copy: Path, path: Path) -> None:
    """Put a copy in the place of an outbox that was killed, whose log stays behind."""
    shutil.copy(copy, path)
    path.with_name("outbox.db-shm").unlink(missing_ok=True)


async def test_a_file_that_a_cut_left_half_copied_is_judged_with_its_log(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE outbox_meta (file_id BLOB, expects_log INTEGER)")
        connection.execute("INSERT INTO outbox_meta VALUES (NULL, NULL)")
        connection.commit()
    check_log(path, accepts_loss=False)


@pytest.mark.parametrize("how", [back_up, recover])
async def test_a_restored_copy_starts_by_itself_and_not_with_the_log_of_its_source(
    path: Path, tmp_path: Path, how: object
) -> None:
    copy = tmp_path / "copy.db"
    own = killed(path)
    how(path, copy, lambda *_: None)  # type: ignore[operator]
    restored(copy, path)
    with pytest.raises(OutboxUnavailableError, match="belongs to another file"):
        await pending(path)
    own.unlink()
    assert await pending(path) == 5


async def test_rows_after_a_restore_have_other_ids_than_those_of_the_lost_ones(
    path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        kept = await outbox.intake.append(event())
        back_up(path, copy, lambda *_: None)
        lost = await outbox.intake.append(event())
    async with open_sqlite_outbox(copy, **LIMITS) as outbox:
        row = await outbox.intake.find(kept.event_id)
        new = await outbox.intake.append(event())
        assert row
        assert (new.seq, row.inngest_id) == (lost.seq, kept.inngest_id)
        assert new.ids.prefix != lost.ids.prefix
        [first, second] = (await outbox.queue.claim(ask())).entries
        ids = outbox.confirmations.inngest_ids
        assert ids.ulid(first.seq, first.accepted_at_ms, first.meta) == kept.inngest_id
        assert ids.ulid(second.seq, second.accepted_at_ms, second.meta) == new.inngest_id


async def test_prefixes_without_rows_are_dropped(path: Path) -> None:
    for _ in range(4):
        async with open_sqlite_outbox(path, **LIMITS) as outbox:
            await append_all(outbox, 1)
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM outbox_prefixes").fetchall() == [(4,)]
        file.execute("DELETE FROM outbox WHERE seq < 4")
        file.execute("DELETE FROM outbox_ready WHERE seq < 4")
        file.commit()
    assert await pending(path) == 1
    with contextlib.closing(sqlite3.connect(path)) as file:
        found = file.execute("SELECT from_seq FROM outbox_prefixes ORDER BY 1").fetchall()
    assert found == [(4,), (5,)]


async def _soon(value: object) -> object:
    return value
