"""How a backup is copied, checked, synced and named, and the command that takes it."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.fill import fill
from inngest_outbox.config.outbox_url import sqlite_url
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import State
from inngest_outbox.outbox.schema import migrate
from inngest_outbox.outbox.sqlite.file import backup as module
from inngest_outbox.outbox.sqlite.file.backup import back_up
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.disks import small_disk
from tests.support.open_files import open_files
from tests.support.outbox_command import one_of_each, outbox_command, outbox_json
from tests.support.storage import LIMITS, append_all, claim, event, ids

ROW = "INSERT INTO outbox_settings VALUES ('user', ?, '{}')"
ROWS = "SELECT scope_id FROM outbox_settings ORDER BY scope_id"


@pytest.fixture
def source(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An outbox with one row, in a folder of its own, which is the working one."""
    monkeypatch.chdir(path.parent)
    migrate(sqlite_url(path))
    write(path, "before")
    return path


@pytest.fixture
def target(path: Path) -> Path:
    folder = path.parent / "backups"
    folder.mkdir()
    return folder / "copy.db"


def write(path: Path, name: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute(ROW, (name,))


def rows(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        return [name for (name,) in file.execute(ROWS)]


def ignore(done: int, total: int) -> None:
    """Nobody looks at the progress."""


def mode(file: Path | int) -> int:
    return stat.S_IMODE(os.stat(file).st_mode)  # noqa: PTH116


def test_a_copy_is_one_file_that_only_its_owner_may_read(source: Path, target: Path) -> None:
    assert back_up(source, target, ignore) == target.stat().st_size
    assert target.read_bytes()[:20] == source.read_bytes()[:18] + b"\x01\x01"
    assert mode(target) == 0o600
    assert rows(target) == ["before"]
    assert [one.name for one in target.parent.iterdir()] == ["copy.db"]
    assert open_files(source.parent) == []
    named = source.with_name("a?b%20c.db")  # special characters are taken as they are
    target.rename(named)
    back_up(named, target, ignore)
    back_up(target, named.with_name("b?c%20d.db"), ignore)
    assert rows(target) == ["before"]
    assert named.with_name("b?c%20d.db").exists()


def test_a_copy_is_of_one_moment_and_has_no_name_before_its_end(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGES", 3)
    told: list[tuple[int, int]] = []
    modes: list[int] = []

    def during(done: int, total: int) -> None:
        told.append((done, total))
        write(source, f"during {done}")
        assert list(target.parent.iterdir()) == []
        partial = [one for one in Path("/proc/self/fd").iterdir() if "partial" in link(one)]
        modes.extend(mode(one) for one in partial)

    back_up(source, target, during)
    total = told[0][1]
    assert total > 9
    assert told == [(min(done, total), total) for done in range(3, total + 3, 3)]
    assert set(modes) == {0o600}
    assert rows(target) == ["before"]


def link(path: Path) -> str:
    with contextlib.suppress(OSError):
        return str(path.readlink())
    return ""


def test_the_copy_is_synced_before_it_is_named_and_its_name_after(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts: list[tuple[str, Any]] = []
    sync, name = os.fsync, os.link

    def fsync(file: int) -> None:
        acts.append(("sync", os.fstat(file).st_size if stat.S_ISREG(os.fstat(file).st_mode) else 0))
        sync(file)

    def linked(path: str, to: str, **named: Any) -> None:
        acts.append(("name", to))
        name(path, to, **named)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", linked)
    size = back_up(source, target, ignore)
    nearly = f"copy.db.named-{os.getpid()}"
    synced = ("sync", size)
    assert acts == [synced, ("name", nearly), synced, ("name", "copy.db"), ("sync", 0)]


def failing_sync(of: Callable[[int], bool]) -> Callable[[int], None]:
    sync = os.fsync

    def fsync(file: int) -> None:
        if of(os.fstat(file).st_mode):
            raise OSError(5, "Input/output error")
        sync(file)

    return fsync


@pytest.mark.parametrize("of", [stat.S_ISREG, stat.S_ISDIR])
def test_a_copy_that_is_not_synced_is_none(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, of: Callable[[int], bool]
) -> None:
    monkeypatch.setattr(os, "fsync", failing_sync(of))
    with pytest.raises(OutboxUnavailableError, match=r"copy\.db can't be used: Input/output error"):
        back_up(source, target, ignore)
    assert list(target.parent.iterdir()) == []
    assert open_files(source.parent) == []


def test_a_file_system_without_nameless_files_gets_a_temporary_name(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, opened = list[str](), os.open

    def unsupported(path: Any, flags: int, *mode: int, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        made.append(str(path))
        return opened(path, flags, *mode, **named)

    monkeypatch.setattr(os, "open", unsupported)
    back_up(source, target, ignore)
    assert made[-1].startswith(f"{target}.whole-")
    assert rows(target) == ["before"]
    assert mode(target) == 0o600
    assert [one.name for one in target.parent.iterdir()] == ["copy.db"]
    assert open_files(source.parent) == []


def test_a_file_that_is_no_outbox_leaves_nothing(source: Path, target: Path) -> None:
    source.write_bytes(b"no database" * 100)
    with pytest.raises(OutboxUnavailableError, match="not an SQLite database"):
        back_up(source, target, ignore)
    assert list(target.parent.iterdir()) == []
    assert open_files(source.parent) == []


def test_a_damaged_outbox_has_no_backup(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [(page,)] = file.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'outbox_ready'")
        [(other,)] = file.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'outbox_sent'")
    with source.open("r+b") as file:
        for one in (page, other):
            file.seek((one - 1) * 4096)
            file.write(b"\xff" * 4096)
    with pytest.raises(OutboxUnavailableError, match="So would be its copy"):
        back_up(source, target, ignore)
    assert list(target.parent.iterdir()) == []


async def test_a_backup_of_a_live_outbox_holds_every_row_and_delivers_it(
    live: SqliteOutbox, path: Path
) -> None:
    written = await one_of_each(live)
    copy = path.with_name("copy.db")
    assert (await outbox_json(path, "backup", str(copy)))["bytes"] > 0
    found = {row["id"]: row["state"] for row in await outbox_json(copy, "list")}
    assert found == {event_id: state for state, event_id in written.items()}
    assert mode(copy) == 0o600
    names = {one.name for one in path.parent.iterdir()}
    assert {name for name in names if name.startswith("copy")} == {"copy.db"}
    async with open_sqlite_outbox(copy, **LIMITS) as restored:
        # What was being sent is due at once, and known to have left; so is the one that waited.
        taken = {*ids(await claim(restored)), *ids(await claim(restored))}
        assert taken == {written["delivering"], written["pending"]}
        row = await restored.intake.find(written["delivering"])
        assert row.first_sent_at_ms is not None
        await restored.intake.append(event())
        dead = await restored.intake.find(written["dead"])
        assert dead.state is State.DEAD


async def test_a_backup_works_without_a_service(path: Path) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        await append_all(outbox, 2)
    copy = path.with_name("copy.db")
    code, out, _ = await outbox_command(path, "backup", str(copy))
    assert code == 0
    assert out == f"Copied {copy.stat().st_size:,} bytes to {copy}.\n"
    other = path.with_name("other.db")
    told = await outbox_json(path, "backup", str(other))
    assert told == {"file": str(other), "bytes": other.stat().st_size}
    assert (await outbox_json(copy, "stats"))["pending"] == 2


async def test_a_backup_replaces_nothing_and_says_what_is_wrong(
    live: SqliteOutbox, path: Path
) -> None:
    there = path.with_name("there.db")
    there.write_text("precious")
    code, _, err = await outbox_command(path, "backup", str(there))
    assert code == 2
    assert "exists already" in err
    assert there.read_text() == "precious"
    assert [*path.parent.glob("there*")] == [there]
    code, _, err = await outbox_command(path, "backup", str(path.parent / "no" / "folder.db"))
    assert code == 2
    assert "No such file or directory" in err
    code, _, err = await outbox_command("postgresql://h/d", "backup", str(path.with_name("x")))
    assert code == 2
    assert "pg_dump" in err


def test_a_full_disk_is_named_by_its_folder(source: Path, tmp_path: Path) -> None:
    write(source, "x" * 2_000_000)
    with small_disk(tmp_path / "small", 1) as folder:
        with pytest.raises(OutboxUnavailableError, match=f"^The disk of {folder} is full.$"):
            back_up(source, folder / "copy.db", ignore)
        assert list(folder.iterdir()) == []


def test_a_backup_that_is_killed_leaves_no_payload(tmp_path: Path) -> None:
    path, folder = tmp_path / "outbox.db", tmp_path / "backups"
    folder.mkdir()
    fill(path, 30_000)
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from inngest_outbox.outbox.sqlite.file.backup import back_up; "
        "back_up(Path(sys.argv[1]), Path(sys.argv[2]), lambda done, total: "
        "done and os.kill(os.getpid(), signal.SIGKILL))"
    )
    command = [sys.executable, "-c", code, str(path), str(folder / "copy.db")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert [one.name for one in folder.iterdir() if one.stat().st_size] == []
