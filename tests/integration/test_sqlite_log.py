"""The log of an SQLite outbox: copied by the service alone, and known by the file it belongs to."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from inngest_outbox.bootstrap.stores import open_outbox
from inngest_outbox.config.settings import Settings
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.sqlite.file import log
from inngest_outbox.outbox.sqlite.file.backup import back_up
from inngest_outbox.outbox.sqlite.file.connection import connect_writer
from inngest_outbox.outbox.sqlite.file.log import WriteAheadLog
from inngest_outbox.outbox.sqlite.file.recover import recover
from inngest_outbox.outbox.sqlite.recovery import check_log
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support.disk_shim import DiskShim, Operation, read_record
from tests.support.posting import can_append
from tests.support.storage import (
    LIMITS,
    PATIENCE_SECONDS,
    PATIENT_WRITER,
    append_all,
    ask,
    event,
    eventually,
)

SERVED = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support.storage import LIMITS, PATIENT_WRITER, append_all, eventually

async def main():
    timings = replace(PATIENT_WRITER, probe_seconds=3600)  # a fault shortly after another
    async with open_sqlite_outbox(Path(sys.argv[1]), **LIMITS, timings=timings) as outbox:
        await append_all(outbox, 3)

        async def can_save():
            try:
                await outbox.scopes.save_scope("user", "u-1", {})
            except OutboxUnavailableError:
                return False
            return True

        for _ in range(int(sys.argv[2])):
            print("ready", flush=True)
            sys.stdin.readline()
            assert not await can_save()
            await eventually(can_save)

asyncio.run(main())
"""


async def killed(path: Path, events: int = 5) -> Path:
    """An outbox as it is where its process is killed; its log."""
    served = path.parent / "served" / path.name
    async with open_sqlite_outbox(served, **LIMITS) as outbox:
        await append_all(outbox, events)
        for ending in ("", "-wal", "-shm"):
            shutil.copy(f"{served}{ending}", f"{path}{ending}")
    shutil.rmtree(served.parent)
    return path.with_name(f"{path.name}-wal")


async def pending(path: Path, *, accepts_loss: bool = False) -> int:
    settings = Settings.load({"OUTBOX_URL": f"sqlite:///{path}"})
    async with open_outbox(settings.with_accepted_loss(accepts=accepts_loss)) as outbox:
        return (await outbox.inspector.stats()).pending


def content(path: Path) -> bytes:
    return path.read_bytes()


def descriptors(path: Path) -> set[int]:
    """The descriptors of this process that have the log open."""
    found = set[int]()
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if one.readlink() == path.with_name(f"{path.name}-wal"):
                found.add(int(one.name))
    return found


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
        syncs.append(file)
        sync(file)

    monkeypatch.setattr(log, "_sync", noted)
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        before, after_start, first = pages(path), len(syncs), descriptors(path)
        for _ in range(40):
            await outbox.intake.append(event(size=8000))
        await eventually(lambda: len(syncs) > after_start)
        assert pages(path) > before
        # One that was open before the first frame: a later one may miss an error.
        assert set(syncs[after_start:]) <= first
        assert WriteAheadLog(path).size == log.PREALLOCATED_BYTES


@pytest.mark.parametrize("is_read", [False, True])
async def test_a_sync_that_fails_at_a_copy_is_told_and_the_log_renewed_unless_it_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, is_read: bool
) -> None:
    monkeypatch.setattr(log, "CHECKPOINT_FRAMES", 60)
    sync, failures = log._sync, list[OSError]()

    def failing(file: int) -> None:
        if failures:
            raise failures.pop()
        sync(file)

    monkeypatch.setattr(log, "_sync", failing)
    timings = replace(PATIENT_WRITER, probe_seconds=0.01)
    async with open_sqlite_outbox(path, **LIMITS, timings=timings) as outbox:
        stored = int(await can_append(outbox))
        failures.append(OSError(5, "Input/output error"))
        with capture_logs() as said:
            with reading(path) if is_read else contextlib.nullcontext():
                while failures:
                    stored += await can_append(outbox)
                if is_read:
                    await eventually(lambda: "a reader of its file" in str(outbox.failure))
                    assert not await can_append(outbox)
            await eventually(lambda: any(one["event"] == "writable_again" for one in said))
        told = [line["event"] for line in said]
        assert told.count("disk_failed") == 1
        reasons = [one["reason"] for one in said if one["event"] == "not_writable"]
        assert any("disk of the outbox failed" in reason for reason in reasons)
        assert outbox.failure is None
        assert (await outbox.inspector.stats()).pending == stored


@contextlib.contextmanager
def reading(path: Path, how: str = "") -> Iterator[None]:
    """Another connection is in a transaction, so that the log can't begin again."""
    opened = sqlite3.connect(f"file:{path}{how}", uri=True, isolation_level=None)
    with contextlib.closing(opened) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM outbox").fetchall()
        yield


def recorded(path: Path, record: Path, *, faults: int = 0) -> list[Operation]:
    """The changes of its disk by a process that serves, whose syncs fail so often."""
    shim = DiskShim(path.parent, record=record)
    with subprocess.Popen(
        [sys.executable, "-c", SERVED, str(path), str(faults)],
        env={**os.environ, **shim.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(faults):
            while process.stdout.readline() not in (b"ready\n", b""):
                pass  # a line of the log
            shim.fail_next_sync("outbox.db-wal")
            process.stdin.write(b"\n")
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    return read_record(record)


def is_whole_before_a_copy(path: Path, changes: list[Operation], content: bytes) -> bool:
    """True if the log is written again and synced before a page of the database is."""
    log_path, wanted = f"{path}-wal", False
    for one in changes:
        if (one.operation, one.path) == ("W", str(path)):
            return False
        if one.path == log_path and one.operation == "W" and not one.offset:
            wanted |= one.data.startswith(content)
        if one.path == log_path and one.operation == "S" and wanted:
            return True
    return False


async def test_a_start_writes_a_killed_process_log_again_before_it_copies_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "disk" / "outbox.db"
    path.parent.mkdir()
    content = (await killed(path)).read_bytes().rstrip(b"\0")
    changes = recorded(path, tmp_path / "record")
    assert is_whole_before_a_copy(path, changes, content)


def test_a_log_is_written_again_after_a_failed_sync_before_it_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "disk" / "outbox.db"
    path.parent.mkdir()
    changes = recorded(path, tmp_path / "record", faults=2)
    failed = [at for at, one in enumerate(changes) if one.operation == "F"]
    assert len(failed) == 2
    for at in failed:
        begun = [one.data for one in changes[:at] if one.path == f"{path}-wal" and not one.offset]
        assert is_whole_before_a_copy(path, changes[at:], begun[-1])


def test_the_room_is_that_of_the_log_which_the_connection_has(path: Path) -> None:
    own = WriteAheadLog(path)
    for _ in range(2):  # SQLite removes the log with its last connection
        with connect_writer(path) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS one (number)")
            own.attach(connection)
            own.preallocate(connection)
            assert own.size == log.PREALLOCATED_BYTES
    own.detach()


async def test_a_stop_whose_last_copy_fails_leaves_the_log_to_the_next_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(file: int) -> None:
        raise OSError(file, "Input/output error")

    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await append_all(outbox, 3)
        before = content(path)
        monkeypatch.setattr(log, "_sync", failing)
    monkeypatch.undo()
    assert content(path) == before
    assert path.with_name("outbox.db-wal").exists()
    assert await pending(path) == 3


@pytest.mark.parametrize("is_copied", [False, True])
async def test_a_log_that_a_reader_kept_at_the_stop_is_missed_unless_it_was_copied(
    path: Path, *, is_copied: bool
) -> None:
    own, index = path.with_name("outbox.db-wal"), path.with_name("outbox.db-shm")
    with contextlib.ExitStack() as reader:
        async with open_sqlite_outbox(path, **LIMITS) as outbox:
            reader.enter_context(reading(path, "?mode=ro"))
            await append_all(outbox, 3)
    if is_copied:
        with contextlib.closing(sqlite3.connect(path)) as shell:  # copies the log as it closes
            shell.execute("SELECT count(*) FROM outbox").fetchall()
        assert not own.exists()
        assert await pending(path) == 3
    else:
        own.unlink()
        index.unlink()
        with pytest.raises(OutboxUnavailableError, match="without its log"):
            await pending(path)


async def test_a_killed_outbox_starts_with_its_log_and_a_stopped_one_needs_none(path: Path) -> None:
    await killed(path)
    assert await pending(path) == 5
    assert not path.with_name("outbox.db-wal").exists()
    assert await pending(path) == 5


async def test_a_killed_outbox_without_its_log_starts_only_when_told_so(path: Path) -> None:
    (await killed(path)).unlink()
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
    foreign, own = await killed(other, 7), await killed(path)
    shutil.copy(foreign, own)
    path.with_name("outbox.db-shm").unlink()
    with pytest.raises(OutboxUnavailableError, match="belongs to another file"):
        await pending(path)
    with capture_logs() as said:
        assert await pending(path, accepts_loss=True) == 0
    assert [line["event"] for line in said].count("log_set_aside") == 1
    assert path.with_name("outbox.db-wal.set-aside").exists()
    assert await pending(other) == 7


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
    own = await killed(path)
    how(path, copy, lambda *_: None)  # type: ignore[operator]
    shutil.copy(copy, path)
    path.with_name("outbox.db-shm").unlink()
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
