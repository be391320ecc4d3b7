"""The file of the write-ahead log: its room, its copying into the database, its renewal."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.wal import WriteAheadLog, refuse_orphaned_log
from tests.support.open_files import open_files

MIB = 1 << 20
ROOM = 256 * 1024
SMALL_DISK = SimpleNamespace(f_blocks=ROOM * 8 // 4096, f_frsize=4096)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which the log gets 256 KiB."""
    monkeypatch.setattr(os, "statvfs", lambda _: SMALL_DISK)


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """The writing connection of a file with a row, whose log is not copied by itself."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as one:
        one.executescript("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;")
        one.executescript("PRAGMA busy_timeout = 700; CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        yield one


def wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def is_open(path: Path) -> bool:
    """Whether this process has the log open, apart from SQLite."""
    return str(wal_of(path)) in open_files()


def stored(path: Path) -> list[Any]:
    """The rows of the database file alone."""
    other = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    with contextlib.closing(other), contextlib.suppress(sqlite3.OperationalError):
        return other.execute("SELECT a FROM t").fetchall()
    return []


def failing(*_: object) -> int:
    raise OSError(5, "I/O error")


def test_the_log_has_16_mebibytes_or_an_eighth_of_a_small_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = WriteAheadLog(path)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=1 << 30, f_frsize=4096))
    assert log.preallocated_bytes == 16 * MIB
    monkeypatch.setattr(os, "statvfs", lambda _: SMALL_DISK)
    assert log.preallocated_bytes == ROOM
    monkeypatch.setattr(os, "statvfs", failing)
    assert log.preallocated_bytes == 16 * MIB


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("size", "is_large", "lacks_room"),
    [(None, False, True), (ROOM - 1, False, True), (ROOM, False, False), (ROOM + 1, True, False)],
)
def test_a_log_is_compared_with_its_room(
    path: Path, size: int | None, *, is_large: bool, lacks_room: bool
) -> None:
    if size is not None:
        wal_of(path).write_bytes(bytes(size))
    log = WriteAheadLog(path)
    assert (log.size, log.is_large, log.lacks_room) == (size or 0, is_large, lacks_room)


@pytest.mark.usefixtures("small")
def test_room_is_allocated_in_a_log_that_is_there(
    path: Path, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = path.with_name("other.db")
    WriteAheadLog(other).preallocate(connection)
    assert not wal_of(other).exists()
    wal_of(other).touch()
    with monkeypatch.context() as patch:
        patch.setattr("service.outbox.sqlite.wal.sys.platform", "darwin")
        WriteAheadLog(other).preallocate(connection)
        assert wal_of(other).stat().st_size == 0
    WriteAheadLog(other).preallocate(connection)
    assert wal_of(other).stat().st_size == ROOM
    assert wal_of(other).stat().st_blocks * 512 >= ROOM
    assert not is_open(other)
    monkeypatch.setattr(os, "posix_fallocate", failing)
    WriteAheadLog(other).preallocate(connection)
    assert not is_open(other)


def test_empty_room_gets_blocks_and_a_piece_with_content_stays_as_it_is(tmp_path: Path) -> None:
    content = b"frames".ljust(MIB, b"\0")
    file = tmp_path / "outbox.db-wal"
    with file.open("wb") as log:
        log.truncate(3 * MIB + 100)
        log.seek(MIB)
        log.write(content)
    before, blocks = file.read_bytes(), file.stat().st_blocks
    wal, positions = WriteAheadLog(tmp_path / "outbox.db"), [0]
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for _ in range(5):
            positions.append(wal.fill(connection, positions[-1]))
    end = 3 * MIB + 100
    assert positions == [0, MIB, 2 * MIB, 3 * MIB, end, end]
    assert file.read_bytes() == before
    assert file.stat().st_blocks * 512 >= len(before) > blocks * 512


def test_a_piece_is_filled_while_no_other_connection_writes(
    path: Path, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, pwrite, begun = WriteAheadLog(path), os.pwrite, []
    advised: list[tuple[int, ...]] = []
    with wal_of(path).open("r+b") as file:
        file.truncate(2 * MIB)

    def write(file: int, piece: bytes, at: int) -> int:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as other:
            try:
                begun.append(other.execute("BEGIN IMMEDIATE"))
            except sqlite3.OperationalError:
                begun.append(None)
        return pwrite(file, piece, at)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *given: advised.append(given))
    assert log.fill(connection, MIB) == 2 * MIB
    assert begun == [None]
    assert advised == [(MIB, MIB, os.POSIX_FADV_DONTNEED)]
    assert not connection.in_transaction
    monkeypatch.setattr(os, "pwrite", failing)
    assert log.fill(connection, MIB) == MIB
    assert not connection.in_transaction


def test_nothing_is_filled_behind_the_end_or_where_nothing_is_allocated(
    path: Path, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, run = WriteAheadLog(path), list[str]()
    connection.set_trace_callback(run.append)
    assert log.fill(connection, log.size) == log.size
    monkeypatch.setattr("service.outbox.sqlite.wal.sys.platform", "darwin")
    assert log.fill(connection, 0) == 0
    assert run == []


def test_a_log_that_another_connection_writes_is_not_filled(
    path: Path, connection: sqlite3.Connection
) -> None:
    connection.execute("PRAGMA busy_timeout = 0")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert WriteAheadLog(path).fill(connection, 0) == 0


def test_a_checkpoint_copies_the_log(path: Path, connection: sqlite3.Connection) -> None:
    assert stored(path) == []
    WriteAheadLog(path).checkpoint(connection)
    assert stored(path) == [(1,)]


@pytest.mark.usefixtures("small")
def test_a_log_is_emptied_and_gets_its_room_without_waiting_for_a_reader(
    path: Path, connection: sqlite3.Connection
) -> None:
    log, run = WriteAheadLog(path), list[str]()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT a FROM t").fetchall()
        connection.execute("INSERT INTO t VALUES (2)")
        connection.set_trace_callback(run.append)
        assert log.truncate(connection) is False
    connection.set_trace_callback(None)
    assert run[1] == "PRAGMA busy_timeout = 0"
    assert log.truncate(connection) is True
    assert stored(path) == [(1,), (2,)]
    assert log.size == ROOM
    assert wal_of(path).read_bytes() == bytes(ROOM)
    assert connection.execute("PRAGMA busy_timeout").fetchall() == [(700,)]


def test_patience_is_as_before_after_a_truncation_that_failed(
    path: Path, connection: sqlite3.Connection
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError):
        WriteAheadLog(path).truncate(connection)
    assert connection.execute("PRAGMA busy_timeout").fetchall() == [(700,)]


def test_a_log_with_a_hole_is_written_again_and_synced_before_it_is_copied(
    path: Path, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute("INSERT INTO t VALUES (zeroblob(1500000))")
    before, acts = wal_of(path).read_bytes(), list[tuple[Any, ...]]()
    pwrite, fsync = os.pwrite, os.fsync

    def write(file: int, piece: bytes, at: int) -> int:
        acts.append((at, piece))
        return pwrite(file, piece, at)

    def sync(file: int) -> None:
        acts.append(("sync", stored(path)))
        fsync(file)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "fsync", sync)
    assert WriteAheadLog(path).renew(connection) is True
    assert acts == [(0, before[:MIB]), (MIB, before[MIB:]), ("sync", [])]
    assert stored(path) != []


@pytest.mark.parametrize("act", ["open", "pwrite", "fsync"])
def test_a_disk_that_fails_again_is_told(
    path: Path, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    opened: list[int] = []
    close: Callable[[int], None] = os.close
    monkeypatch.setattr(os, act, failing)
    monkeypatch.setattr(os, "close", lambda file: (opened.append(file), close(file)))
    with pytest.raises(OutboxUnavailableError, match=r"The disk of the outbox failed: .*I/O error"):
        WriteAheadLog(path).renew(connection)
    assert len(opened) == (0 if act == "open" else 1)


def test_a_reader_that_keeps_the_old_log_is_told(
    path: Path, connection: sqlite3.Connection
) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT a FROM t").fetchall()
        connection.execute("INSERT INTO t VALUES (2)")
        with pytest.raises(OutboxUnavailableError, match="until a reader of its file"):
            WriteAheadLog(path).renew(connection)


@pytest.mark.parametrize("magic", [b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"])
@pytest.mark.parametrize("database", [None, b""])
def test_a_log_with_content_beside_no_database_is_refused(
    path: Path, magic: bytes, database: bytes | None
) -> None:
    if database is not None:
        path.write_bytes(database)
    wal_of(path).write_bytes(magic + bytes(28))
    with pytest.raises(OutboxUnavailableError, match="the log beside it has content"):
        refuse_orphaned_log(path)


def test_any_other_log_is_none_that_lost_its_database(path: Path) -> None:
    refuse_orphaned_log(path)
    wal_of(path).write_bytes(bytes(32))
    refuse_orphaned_log(path)
    wal_of(path).write_bytes(b"\x37\x7f\x06\x82" + bytes(28))
    path.write_bytes(b"content")
    refuse_orphaned_log(path)
