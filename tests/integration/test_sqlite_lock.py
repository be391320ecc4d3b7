"""One writing process for one file, whatever names the file has and wherever it is mounted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import OutboxBusyError, OutboxUnavailableError
from service.outbox.sqlite.file.lock import lock_path, writer_of
from service.outbox.sqlite.file.log import PREALLOCATED_BYTES, WriteAheadLog
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.disks import run
from tests.support.outbox_command import outbox_json
from tests.support.posting import can_append
from tests.support.storage import append_all, event, eventually


async def refuses(path: Path) -> None:
    with pytest.raises(OutboxBusyError):
        async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9):
            pass


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """The outbox's file again, in another folder, as a container's mount makes it."""
    other = tmp_path / "elsewhere" / "outbox.db"
    other.parent.mkdir()
    other.touch()
    yield other
    run("umount", "-l", str(other))


async def test_a_link_to_the_file_is_the_same_outbox(outbox: SqliteOutbox, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "outbox.db")
    assert (writer_of(link) or {})["pid"] == os.getpid()
    assert WriteAheadLog(link).size == PREALLOCATED_BYTES
    await refuses(link)


async def test_the_same_file_mounted_elsewhere_is_the_same_outbox(
    outbox: SqliteOutbox, tmp_path: Path, mounted: Path
) -> None:
    if not run("mount", "--bind", str(tmp_path / "outbox.db"), str(mounted)):
        pytest.skip("this machine mounts nothing for us")
    await refuses(mounted)


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_lock_file_that_is_removed_or_replaced_lets_nobody_in(
    outbox: SqliteOutbox, tmp_path: Path, *, replaced: bool
) -> None:
    note = lock_path(tmp_path / "outbox.db")
    note.unlink()
    if replaced:
        note.touch()
    await refuses(tmp_path / "outbox.db")
    assert writer_of(tmp_path / "outbox.db") is None
    await outbox.maintenance.maintain()
    if not replaced:
        assert (writer_of(tmp_path / "outbox.db") or {})["pid"] == os.getpid()


async def test_a_file_that_is_replaced_while_it_is_served_takes_nothing_more(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    path, aside = tmp_path / "outbox.db", tmp_path / "aside.db"
    await append_all(outbox, 1)
    shutil.copy(path, aside)
    aside.rename(path)

    async def refused() -> bool:
        return not await can_append(outbox)

    await eventually(refused)
    assert "replaced or removed" in str(outbox.failure)
    with pytest.raises(OutboxUnavailableError):
        await outbox.intake.append(event())


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


@pytest.mark.parametrize("missing", [False, True])
async def test_an_empty_file_beside_a_log_with_content_is_no_new_outbox(
    tmp_path: Path, *, missing: bool
) -> None:
    path = tmp_path / "outbox.db"
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
        await append_all(outbox, 3)
        for ending in ("", "-wal"):
            shutil.copy(f"{path}{ending}", tmp_path / f"copy.db{ending}")
    copy = tmp_path / "copy.db"
    whole = copy.read_bytes()
    copy.unlink()
    if not missing:
        copy.touch()
    with pytest.raises(OutboxUnavailableError, match="log beside it has content"):
        async with open_sqlite_outbox(copy, max_pending=9, max_pending_per_user=9):
            pass
    copy.write_bytes(whole)
    assert (await outbox_json(copy, "stats"))["pending"] == 3  # the log is read too
    async with open_sqlite_outbox(copy, max_pending=9, max_pending_per_user=9) as outbox:
        assert (await outbox.inspector.stats()).pending == 3
