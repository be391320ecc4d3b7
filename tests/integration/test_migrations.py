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

from service.errors import OutboxUnavailableError, SchemaTooNewError
from service.outbox import schema as migrations
from service.outbox.schema import known_ids, latest_known, migrate, pending


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def run(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute(statement).fetchall()
        connection.commit()
    finally:
        connection.close()
    return rows


def test_both_dialects_have_the_same_numbers() -> None:
    assert known_ids("sqlite:///x") == known_ids("postgresql://x")
    assert latest_known() == known_ids("sqlite:///x")[-1]


def test_what_is_pending_is_told_and_nothing_is_made(path: Path) -> None:
    assert pending(f"sqlite:///{path}") == known_ids("sqlite:///")
    assert not path.exists()


def test_a_new_file_gets_every_migration_once(path: Path) -> None:
    url = f"sqlite:///{path}"
    assert migrate(url) == known_ids(url)
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
    run(path, "INSERT INTO _yoyo_migration VALUES ('x', '9999_later', NULL)")
    with pytest.raises(SchemaTooNewError):
        migrate(url)
    with pytest.raises(SchemaTooNewError):
        pending(url)


def test_the_lock_of_a_killed_process_holds_up_nobody(path: Path) -> None:
    url = f"sqlite:///{path}"
    run(path, "CREATE TABLE yoyo_lock (locked INT DEFAULT 1, ctime TIMESTAMP, pid INT NOT NULL)")
    run(path, "INSERT INTO yoyo_lock VALUES (1, '2020-01-01', 1)")
    assert migrate(url) == known_ids(url)


def test_processes_that_start_at_once_apply_each_migration_once(path: Path) -> None:
    code = "import sys; from service.outbox.schema import migrate; print(migrate(sys.argv[1]))"
    command = [sys.executable, "-W", "error", "-c", code, f"sqlite:///{path}"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert sorted(out.strip() for out, _ in said) == sorted(
        [str(known_ids("sqlite:///")), "[]", "[]"]
    )


BEFORE_PLACES = """
INSERT INTO outbox (seq, id, name, user_id, accepted_at, state, isolated, due_at, attempts, sends,
                    first_sent_at, settled_at, reason, detail, history, trace, idempotency_key,
                    digest, payload)
VALUES (1, 'e-1', 'n', 'u-1', 10, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, '[]', 't', 'k', 'd',
        x'7b7d'),
       (2, 'e-2', 'n', 'u-1', 20, 0, 1, 99, 2, 3, 21, NULL, NULL, NULL, '[{"at":1,"note":"a"}]',
        NULL, NULL, NULL, x'7b7d'),
       (3, 'e-3', 'n', 'u-2', 30, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, '[]', NULL, NULL, NULL,
        x'7b207d'),
       (4, 'e-4', 'n', 'u-2', 40, 1, 0, 0, 1, 1, 41, 42, NULL, NULL, '[]', NULL, NULL, NULL,
        x'7b7d'),
       (7, 'e-7', 'n', 'u-2', 70, 2, 1, 0, 3, 3, 71, 72, 'rejected', 'no', '[{"at":2,"note":"b"}]',
        NULL, 'k', 'd', x'7b7d');
INSERT INTO claims VALUES (3, 'c', 31, 32);
"""


def test_an_outbox_of_before_the_places_keeps_every_row(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{path}"
    first = migrations._folder(url) / "0001_outbox.sql"
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "_folder", lambda _: tmp_path / "only-the-first")
        (tmp_path / "only-the-first").mkdir()
        shutil.copy(first, tmp_path / "only-the-first")
        assert migrate(url) == ["0001_outbox"]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(BEFORE_PLACES)
    assert "0002_places" in migrate(url)
    assert run(path, "SELECT * FROM ready") == [
        (1, 2, 0, 0, 0, 0, None, None),
        (2, 2, 99, 1, 2, 3, 21, '[{"at":1,"note":"a"}]'),
    ]
    assert run(path, "SELECT * FROM claims") == [(3, "c", 31, 32, 3, 0, 0, 0, None, None)]
    assert run(path, "SELECT * FROM done") == [
        (4, 0, 42, 0, 1, 1, 41, None, None, None),
        (7, 1, 72, 1, 3, 3, 71, '[{"at":2,"note":"b"}]', "rejected", "no"),
    ]
    assert run(path, "SELECT * FROM outbox WHERE seq IN (1, 3)") == [
        (1, "e-1", "n", "u-1", 10, "t", "k", "d", b"{}"),
        (3, "e-3", "n", "u-2", 30, None, None, None, b"{ }"),
    ]
    assert run(path, "SELECT seq, id, idempotency_key FROM outbox WHERE seq > 3") == [
        (4, "e-4", None),
        (7, "e-7", "k"),
    ]
    assert run(path, "PRAGMA integrity_check") == [("ok",)]


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
