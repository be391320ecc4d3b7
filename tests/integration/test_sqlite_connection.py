"""How a connection to the file is opened, used and given up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.sqlite.file import connection as module
from inngest_outbox.outbox.sqlite.file.connection import (
    SqliteConnection,
    _close,
    open_read_only,
    open_reader,
    open_writer,
)
from tests.support.ended_threads import PATIENCE_SECONDS, ended_threads
from tests.support.open_files import open_files


def pragmas(connection: sqlite3.Connection, names: str) -> list[object]:
    return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names.split()]


def fetched(connection: sqlite3.Connection, statement: str, *, first: bool = False) -> Any:
    rows = connection.execute(statement).fetchall()
    return rows[0] if first else rows


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[SqliteConnection]:
    async with open_writer(path) as opened:
        await opened.run(lambda one: one.execute("CREATE TABLE t (a TEXT)"))
        yield opened


@pytest.fixture
def broken(path: Path) -> Path:
    path.write_bytes(b"no database" * 100)
    return path


async def test_the_writer_syncs_its_log_at_each_commit_and_checkpoints(
    writer: SqliteConnection,
) -> None:
    kept = "journal_mode synchronous busy_timeout wal_autocheckpoint fullfsync checkpoint_fullfsync"
    assert await writer.run(pragmas, kept) == ["wal", 2, 1000, 0, 1, 1]
    held = "journal_size_limit cache_size temp_store"
    assert await writer.run(pragmas, held) == [33554432, -32768, 2]
    assert await writer.run(lambda one: one.isolation_level) is None


@pytest.mark.parametrize("opened", [open_reader, open_read_only])
async def test_a_reader_neither_writes_nor_checkpoints(
    path: Path, writer: SqliteConnection, opened: Callable[[Path], Any]
) -> None:
    async with opened(path) as reader:
        found = await reader.run(pragmas, "busy_timeout wal_autocheckpoint query_only")
        assert found == [1000, 0, 1]
        with pytest.raises(OutboxUnavailableError):
            await reader.run(fetched, "INSERT INTO t VALUES ('a')")
        await writer.run(fetched, "INSERT INTO t VALUES (CAST(x'61ff' AS TEXT))")
        assert await reader.run(fetched, "SELECT a FROM t") == [("a\ufffd",)]
        assert await reader.run(lambda one: one.isolation_level) is None


async def test_an_onlooker_of_a_file_that_nobody_writes_reads_that_file_alone(
    path: Path, writer: SqliteConnection
) -> None:
    async with open_read_only(path, immutable=True) as reader:
        assert await reader.run(fetched, "SELECT name FROM sqlite_schema") == []
    await writer.run(fetched, "PRAGMA wal_checkpoint")
    async with open_read_only(path, immutable=True) as reader:
        assert await reader.run(fetched, "SELECT name FROM sqlite_schema") == [("t",)]


async def test_a_statement_that_runs_is_ended_from_another_thread(
    writer: SqliteConnection,
) -> None:
    began = threading.Event()

    def last(connection: sqlite3.Connection) -> None:
        connection.create_function("begun", 0, began.set)
        endless = "WITH RECURSIVE n(i) AS (SELECT begun() UNION ALL SELECT i FROM n)"
        connection.execute(f"{endless} SELECT count(*) FROM n").fetchall()

    running = asyncio.create_task(writer.run(last))
    await asyncio.to_thread(began.wait)
    writer.interrupt()
    with pytest.raises(OutboxUnavailableError):
        await running


async def test_a_closed_connection_has_closed_its_file_and_takes_nothing_more(path: Path) -> None:
    with contextlib.suppress(KeyError):
        async with open_writer(path) as writer:
            await writer.run(fetched, "CREATE TABLE t (a TEXT)")
            assert open_files(path)
            raise KeyError
    assert open_files(path) == []
    with pytest.raises(OutboxUnavailableError):
        await writer.run(fetched, "SELECT 1")


async def test_a_file_that_can_not_be_used_is_not_left_open(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, ends = aiosqlite.Connection.stop, []

    def noted(thread: aiosqlite.Connection) -> asyncio.Future[None] | None:
        ends.append(stop(thread))
        return ends[-1]

    monkeypatch.setattr(aiosqlite.Connection, "stop", noted)
    with pytest.raises(OutboxUnavailableError) as caught:
        async with open_writer(broken):
            pass
    assert caught.value.__traceback__
    assert [end.done() for end in ends] == [True]
    assert open_files(broken) == []


@pytest.mark.parametrize("fails", [False, True])
async def test_an_opening_that_is_cancelled_leaves_no_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    await asyncio.to_thread(path.touch)
    begun, may_open, opened, connect = threading.Event(), threading.Event(), [], sqlite3.connect

    def slowly(*given: Any, **how: Any) -> sqlite3.Connection:
        begun.set()
        assert may_open.wait(PATIENCE_SECONDS)
        if fails:
            raise sqlite3.OperationalError("disk I/O error")
        opened.append(connect(*given, **how))
        return opened[0]

    monkeypatch.setattr(sqlite3, "connect", slowly)
    monkeypatch.delattr(aiosqlite.Connection, "__del__", raising=False)  # it may come late
    async with ended_threads():
        opening = asyncio.create_task(open_reader(path).__aenter__())
        assert await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        may_open.set()
    assert str(path) not in open_files()


async def test_a_close_waits_until_the_thread_has_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, held = aiosqlite.Connection.stop, threading.Event()

    def held_back(thread: aiosqlite.Connection) -> asyncio.Future[None] | None:
        thread._tx.put_nowait((None, held.wait))
        return stop(thread)

    monkeypatch.setattr(aiosqlite.Connection, "stop", held_back)
    async with ended_threads(), contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(open_writer(path))
        closing = asyncio.create_task(stack.aclose())
        try:
            done, _ = await asyncio.wait({closing}, timeout=0.1)
        finally:
            held.set()
        await closing
    assert not done


async def test_a_close_does_not_wait_for_a_disk_that_hangs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.02)
    released, stack = threading.Event(), contextlib.AsyncExitStack()
    async with ended_threads():
        writer = await stack.enter_async_context(open_writer(path))
        hanging = asyncio.create_task(writer.run(lambda _: released.wait()))
        await asyncio.sleep(0)
        with pytest.raises(OutboxUnavailableError, match="does not answer"):
            await stack.aclose()
        released.set()
        assert await hanging


class Closing:
    """A thread whose connection closes, with an error, when it is told to."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def close(self) -> None:
        await self.may_end.wait()
        raise sqlite3.OperationalError("disk I/O error")


async def test_a_close_that_fails_is_an_error_of_the_outbox() -> None:
    thread = Closing()
    thread.may_end.set()
    with pytest.raises(OutboxUnavailableError):
        await _close(thread)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_how_an_abandoned_close_ends_is_nobodys_error(
    monkeypatch: pytest.MonkeyPatch, *, is_cancelled: bool
) -> None:
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.01)
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    thread, before = Closing(), asyncio.all_tasks()
    with pytest.raises(OutboxUnavailableError):
        await _close(thread)  # type: ignore[arg-type]
    [closing] = asyncio.all_tasks() - before
    if is_cancelled:
        closing.cancel()
    thread.may_end.set()
    await asyncio.wait([closing])
    await asyncio.sleep(0)
    del closing
    gc.collect()
    assert said == []
