"""The commits of an SQLite outbox: whole or not at all, and synced where they must be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.sqlite import commit
from service.outbox.sqlite.commit import write_something
from service.outbox.sqlite.wal import WriteAheadLog
from tests.support.commit_room import OFF_UNTIL_LATE, SYNCED, Made, synchronous
from tests.support.work_kinds import Kind, sqlite_error


@pytest.fixture
async def made(path: Path) -> AsyncIterator[Made]:
    found = Made(path)
    yield found
    await found.commits.stop()


async def test_a_group_is_committed_in_one_transaction_and_gives_the_results_of_each_kind(
    made: Made,
) -> None:
    assert made.commits.count == 0
    assert await made.write(made.synced, made.lazy) == [["done 1"], ["done 1"]]
    assert made.rows() == 2
    made.lazy.answer = lambda item: 1 / 0
    with pytest.raises(ZeroDivisionError):
        await made.write(made.synced, made.lazy)
    assert made.rows() == 2
    await made.write(made.synced)
    assert made.rows() == 3
    assert made.commits.count == 3
    assert len(made.recorder.seconds) == 3
    assert all(0 <= seconds < 60 for seconds in made.recorder.seconds)
    assert made.preparation.steps == ["migrate", "run"]


async def test_a_transaction_keeps_other_writers_out_from_its_beginning(made: Made) -> None:
    def other_writes(item: object) -> str:
        with contextlib.closing(sqlite3.connect(made.path, timeout=0)) as other:
            other.execute("DELETE FROM t")
        return "no"

    looks = Kind()
    looks.answer = other_writes
    with pytest.raises(OutboxUnavailableError, match="Another process"):
        await made.write(looks)  # type: ignore[arg-type]


async def test_only_what_must_be_synced_is_and_what_was_not_is_due_once(made: Made) -> None:
    commits, loop = made.commits, asyncio.get_running_loop()
    before = loop.time()
    await made.write(made.lazy)
    first_due = commits.sync_due_at
    assert first_due is not None
    assert before + 7.0 <= first_due <= loop.time() + 7.0
    await asyncio.sleep(0.01)
    await made.write(made.lazy)
    assert commits.sync_due_at == first_due
    await made.write(made.lazy, made.synced)
    assert commits.sync_due_at is None
    await made.write(made.synced)
    await made.write(made.lazy)
    log = made.path.with_name(f"{made.path.name}-wal")
    before = log.read_bytes()
    await made.write()
    assert commits.sync_due_at is None
    assert log.read_bytes() != before
    assert await commits.run(synchronous) == SYNCED
    assert made.lazy.told == [(mode,) for mode in (1, 1, 2, 1)]
    assert made.synced.told == [(SYNCED,), (SYNCED,)]


async def test_a_new_connection_is_synced_until_a_commit_needs_no_sync(made: Made) -> None:
    await made.write(made.lazy)
    await made.commits.close()
    await made.write(made.synced)
    for _ in range(2):
        await made.commits.close()
        await made.write(made.lazy)
    assert made.synced.told == [(SYNCED,)]
    assert made.lazy.told == [(OFF_UNTIL_LATE,)] * 3


async def test_a_commit_that_failed_before_it_began_leaves_the_next_one_synced(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise sqlite_error("SQLITE_NOMEM")

    await made.write(made.lazy)
    with monkeypatch.context() as patch:
        patch.setattr(commit, "transact", fails)
        with pytest.raises(OutboxUnavailableError):
            await made.write(made.synced)
    await made.write(made.synced)
    assert made.synced.told == [(SYNCED,)]


async def test_a_commit_that_failed_after_it_began_leaves_the_next_one_synced(made: Made) -> None:
    await made.write(made.synced)
    made.lazy.answer = lambda item: 1 / 0
    with pytest.raises(ZeroDivisionError):
        await made.write(made.lazy)
    await made.write(made.synced)
    assert made.lazy.told == [(OFF_UNTIL_LATE,)]
    assert made.synced.told == [(SYNCED,), (SYNCED,)]


async def test_without_a_connection_nothing_runs_and_a_commit_opens_one(made: Made) -> None:
    with pytest.raises(OutboxUnavailableError):
        await made.commits.run(synchronous)
    await made.write(made.synced)
    assert await made.commits.run(synchronous) == SYNCED
    await made.commits.close()
    with pytest.raises(OutboxUnavailableError):
        await made.commits.run(synchronous)
    await made.write(made.synced)
    assert made.rows() == 2
    assert made.preparation.steps == ["migrate", "run"] * 2


async def test_a_probe_writes_through_a_new_connection_and_leaves_none_behind(made: Made) -> None:
    await made.write(made.synced)
    log, open_files = made.path.with_name(f"{made.path.name}-wal"), made.descriptors()
    for _ in range(3):
        before = log.read_bytes()
        await made.commits.probe()
        assert log.read_bytes() != before
    assert made.preparation.steps == ["migrate", "run"] * 4
    assert made.descriptors() == open_files
    await made.commits.stop()
    assert made.descriptors() == 0


async def test_a_probe_makes_room_in_a_log_that_filled_the_disk(made: Made) -> None:
    await made.write(made.synced)
    assert made.rows_without_log() == 0
    await made.commits.run(write_something)
    assert made.rows_without_log() == 1


async def test_a_stop_leaves_all_in_the_database_unless_the_log_is_suspect(made: Made) -> None:
    await made.write(made.synced)
    await made.commits.stop()
    assert made.rows_without_log() == 1
    assert made.descriptors() == 0


async def test_a_suspect_log_is_not_copied_at_the_stop_and_renewed_at_the_next_start(
    made: Made,
) -> None:
    await made.write(made.synced)
    made.lock.suspects_log = True
    await made.commits.close()
    assert made.rows_without_log() == 0
    await made.commits.stop()
    assert made.descriptors() == 0
    assert made.rows_without_log() == 0
    again = Made(made.path)
    again.lock.suspects_log = True
    await again.commits.open()
    assert not again.lock.suspects_log
    assert again.rows_without_log() == 1
    await again.commits.stop()


async def test_a_log_that_is_not_suspect_gets_room_and_is_read(made: Made) -> None:
    await made.write(made.synced)
    copy = Made(made.path.with_name("copy.db"))
    for end in ("", "-wal"):
        shutil.copy(f"{made.path}{end}", f"{copy.path}{end}")
    os.truncate(f"{copy.path}-wal", 100_000)
    await copy.commits.open()
    assert WriteAheadLog(copy.path).size > 10_000_000
    assert (copy.rows(), copy.rows_without_log()) == (1, 0)
    await copy.commits.stop()
