"""How migrations are applied to an SQLite file, and what a look at it leaves alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.schema import known_ids, migrate
from inngest_outbox.outbox.sqlite.file.schema import SqliteSchema, make_folder
from tests.support.open_files import open_files
from tests.support.storage import PATIENCE_SECONDS, eventually

GOOD = ("0001_good", "CREATE TABLE good (x);")
BAD = ("0002_bad", "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1);")
OPEN = Path("/proc/self/fd")
WAITS = ("0001_waits", "CREATE TABLE waits AS SELECT * FROM pragma_busy_timeout;")


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def run(path: Path, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.usefixtures("open_umask")
def test_a_new_file_is_its_owner_s_alone(path: Path) -> None:
    SqliteSchema(path).apply([GOOD])
    assert path.stat().st_mode & 0o7777 == 0o600
    assert SqliteSchema(path).apply([GOOD]) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o601])
def test_a_file_that_others_may_use_is_told(path: Path, mode: int) -> None:
    SqliteSchema(path).apply([GOOD])
    path.chmod(mode)
    with capture_logs() as logs:
        assert SqliteSchema(path).applied() == {"0001_good"}
    said = {"path": str(path), "mode": f"0{mode:o}", "repair": f"chmod 600 {path}"}
    assert logs == [{"event": "file_open_to_others", "log_level": "warning", **said}]


def test_a_look_makes_nothing_and_removes_nothing(path: Path) -> None:
    assert SqliteSchema(path).applied() == set()
    assert list(path.parent.iterdir()) == []
    log = path.with_name(f"{path.name}-wal")
    path.touch(0o600)
    log.write_bytes(bytes(512))
    assert SqliteSchema(path).applied() == set()
    assert sorted(path.parent.iterdir()) == sorted([path, log])


def test_a_file_without_the_outbox_s_record_has_no_migration(path: Path) -> None:
    run(path, "CREATE TABLE other (x)")
    path.chmod(0o600)
    assert SqliteSchema(path).applied() == set()
    assert SqliteSchema(path).apply([GOOD]) == ["0001_good"]


def test_a_record_of_another_form_is_an_error(path: Path) -> None:
    run(path, "CREATE TABLE outbox_migrations (other)")
    path.chmod(0o600)
    with pytest.raises(sqlite3.OperationalError, match="no such column: id"):
        SqliteSchema(path).applied()


def test_a_look_may_not_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteSchema(path).apply([GOOD])
    asked: list[tuple[Any, dict[str, Any]]] = []
    connect = sqlite3.connect

    def noted(address: Any, **options: Any) -> sqlite3.Connection:
        asked.append((address, options))
        return connect(address, **options)

    monkeypatch.setattr(sqlite3, "connect", noted)
    assert SqliteSchema(path).applied() == {"0001_good"}
    assert asked == [(f"file:{path}?mode=ro", {"uri": True})]


def test_what_is_no_file_is_an_error(path: Path) -> None:
    path.mkdir(mode=0o700)
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        SqliteSchema(path).applied()


def test_a_migration_waits_30_s_for_another_process(path: Path) -> None:
    SqliteSchema(path).apply([WAITS])
    assert run(path, "SELECT * FROM waits") == [(30_000,)]


def test_one_that_fails_leaves_none_and_nothing_open(path: Path) -> None:
    before = open_files()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
            SqliteSchema(path).apply([GOOD, BAD])
        assert open_files() == before
        assert SqliteSchema(path).applied() == set()
        SqliteSchema(path).apply([GOOD, ("0002_mended", "CREATE TABLE half (x);")])
    assert open_files() == before
    assert warned == []
    assert run(path, "SELECT id FROM outbox_migrations ORDER BY id") == [
        ("0001_good",),
        ("0002_mended",),
    ]


def waits_for(folder: Path) -> bool:
    """Whether somebody waits for the folder's lock."""
    inode = f":{folder.stat().st_ino} "
    locks = Path("/proc/locks").read_text().splitlines()
    return any("->" in one and inode in one for one in locks)


async def test_one_process_applies_at_a_time(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    applying = threading.Thread(target=SqliteSchema(path).apply, args=([GOOD],))
    applying.start()
    await eventually(lambda: not applying.is_alive() or waits_for(path.parent))
    assert SqliteSchema(path).applied() == set()
    os.close(descriptor)
    applying.join(timeout=PATIENCE_SECONDS)
    assert SqliteSchema(path).applied() == {"0001_good"}


def test_what_is_new_of_a_path_is_kept_by_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda one: synced.append(str((OPEN / f"{one}").readlink())))
    before = open_files()
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert sorted(synced) == [str(tmp_path), str(tmp_path / "a")]
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2
    assert open_files() == before


def test_a_sync_that_fails_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    before = open_files()
    with pytest.raises(OSError, match="Input/output error"):
        make_folder(tmp_path / "a")
    assert open_files() == before


def test_a_path_with_any_character_is_that_file_which_can_give_space_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "50%20?#ü.db"
    migrate(f"sqlite:///{path}")
    assert run(path, "PRAGMA auto_vacuum") == [(2,)]
    assert run(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_not_be_written_is_told(path: Path) -> None:
    path.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutboxUnavailableError):
        migrate(f"sqlite:///{path}")


def test_a_file_whose_making_was_cut_off_is_made_at_the_next_start(path: Path) -> None:
    """What a power cut leaves before the file has its write-ahead log: a journal to roll back."""
    making = path.with_name("making.db")
    with contextlib.closing(sqlite3.connect(making, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE filler (text)")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO filler VALUES (zeroblob(100000))")
        for ending in ("", "-journal"):
            shutil.copy(f"{making}{ending}", f"{path}{ending}")
    assert migrate(f"sqlite:///{path}") == known_ids()
    assert run(path, "SELECT count(*) FROM filler") == [(0,)]
