from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.errors import OutboxUnavailableError, SchemaTooNewError, SchemaTooOldError
from service.outbox.schema import known_ids, migrate, pending
from service.outbox.sqlite.file.schema import SqliteSchema


def run(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute(statement).fetchall()
        connection.commit()
    finally:
        connection.close()
    return rows


def test_what_is_pending_is_told_and_nothing_is_made(path: Path) -> None:
    assert pending(f"sqlite:///{path}") == known_ids()
    assert not path.exists()


def test_a_new_file_gets_every_migration_once(path: Path) -> None:
    url = f"sqlite:///{path}"
    assert migrate(url) == known_ids()
    assert migrate(url) == []
    assert pending(url) == []


def test_the_file_can_give_space_back_and_keeps_a_write_ahead_log(path: Path) -> None:
    migrate(f"sqlite:///{path}")
    assert run(path, "PRAGMA auto_vacuum") == [(2,)]
    assert run(path, "PRAGMA journal_mode") == [("wal",)]


def test_a_path_with_any_character_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "50%20?#ü.db"
    migrate(f"sqlite:///{path}")
    assert path.exists()


def test_a_schema_from_a_later_version_is_refused(path: Path) -> None:
    url = f"sqlite:///{path}"
    migrate(url)
    run(path, "INSERT INTO outbox_migrations VALUES ('9999_later', 0)")
    with capture_logs() as logs:
        with pytest.raises(SchemaTooNewError):
            migrate(url)
        with pytest.raises(SchemaTooNewError):
            pending(url)
    assert logs == []


def test_the_next_schema_is_accepted_so_that_processes_are_replaced_one_by_one(path: Path) -> None:
    url = f"sqlite:///{path}"
    migrate(url)
    number = int(known_ids()[-1].partition("_")[0]) + 1
    run(path, f"INSERT INTO outbox_migrations VALUES ('{number:04}_next', 0)")
    with capture_logs() as logs:
        assert (pending(url), migrate(url)) == ([], [])
    [line] = [line for line in logs if line["event"] == "schema_is_newer"]
    assert (line["applied"], line["until"]) == (f"{number:04}_next", f"{number + 1:04}")


@pytest.mark.parametrize("state", ["0001_outbox", "0003_attached_alone"])
def test_an_outbox_of_before_the_first_release_is_refused_and_not_touched(
    path: Path, state: str
) -> None:
    url = f"sqlite:///{path}"
    run(path, "CREATE TABLE outbox_migrations (id TEXT PRIMARY KEY, applied_at_ms INTEGER)")
    run(path, f"INSERT INTO outbox_migrations VALUES ('0001_outbox', 0), ('{state}x', 0)")
    before = path.read_bytes()
    for act in (migrate, pending):
        with pytest.raises(SchemaTooOldError, match=r"before 0\.1\.0.*until `outbox stats` counts"):
            act(url)
    assert path.read_bytes() == before


def test_migrations_of_a_version_are_applied_together_or_not_at_all(path: Path) -> None:
    schema = SqliteSchema(path)
    good = ("0001_good", "CREATE TABLE good (a);")
    with pytest.raises(sqlite3.Error):
        schema.apply([good, ("0002_bad", "CREATE TABLE half (a); INSERT INTO nowhere VALUES (1);")])
    assert schema.applied() == set()
    assert run(path, "SELECT count(*) FROM sqlite_master") == [(0,)]
    mended = ("0002_mended", "CREATE TABLE half (a)")
    assert schema.apply([good, mended]) == ["0001_good", "0002_mended"]
    assert schema.apply([good, mended]) == []


def test_processes_that_start_at_once_apply_each_migration_once(path: Path) -> None:
    code = "import sys; from service.outbox.schema import migrate; print(*migrate(sys.argv[1]))"
    command = [sys.executable, "-W", "error", "-c", code, f"sqlite:///{path}"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    applied = [one for out, _ in said for one in out.split()]
    assert sorted(applied) == known_ids()


def test_a_file_that_is_no_database_is_told_apart(path: Path) -> None:
    path.write_bytes(b"garbage " * 1000)
    with pytest.raises(OutboxUnavailableError, match="file is not a database"):
        migrate(f"sqlite:///{path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_not_be_written_is_told(path: Path) -> None:
    path.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutboxUnavailableError):
        migrate(f"sqlite:///{path}")


def test_a_database_that_does_not_answer_is_told_without_its_password() -> None:
    with pytest.raises(OutboxUnavailableError) as error:
        migrate("postgresql://outbox:hunter2@127.0.0.1:1/outbox")
    assert "hunter2" not in str(error.value)


def test_a_file_that_others_may_read_is_told_with_its_repair(path: Path) -> None:
    migrate(f"sqlite:///{path}")
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    with capture_logs() as logs:
        migrate(f"sqlite:///{path}")
    [line] = [line for line in logs if line["event"] == "file_open_to_others"]
    assert (line["mode"], line["repair"]) == ("0644", f"chmod 600 {path}")
    path.chmod(0o600)
    with capture_logs() as logs:
        migrate(f"sqlite:///{path}")
    assert logs == []


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
