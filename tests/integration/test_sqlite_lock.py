"""One writing process for one file, whatever its names; the lock of a killed one goes soon."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from inngest_outbox.errors import OutboxBusyError, OutboxUnavailableError
from inngest_outbox.outbox.sqlite.file.lock import LockTimings, lock_path, sole_writer, writer_of
from inngest_outbox.outbox.sqlite.file.log import PREALLOCATED_BYTES, WriteAheadLog
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.disks import run
from tests.support.outbox_command import outbox_json
from tests.support.posting import can_append
from tests.support.storage import append_all, event, eventually

FEW = {"max_pending": 9, "max_pending_per_user": 9}


async def refuses(path: Path) -> None:
    with pytest.raises(OutboxBusyError):
        async with open_sqlite_outbox(path, **FEW):
            pass


async def is_no_outbox(path: Path, words: str) -> None:
    with pytest.raises(OutboxUnavailableError, match=words):
        async with open_sqlite_outbox(path, **FEW):
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
    async with open_sqlite_outbox(path, **FEW):
        pass
    other.hardlink_to(path)
    for name in (path, other):
        await is_no_outbox(name, "second name")
    other.unlink()
    async with open_sqlite_outbox(path, **FEW):
        pass


async def test_an_empty_file_beside_a_log_with_content_is_no_new_outbox(tmp_path: Path) -> None:
    path, copy = tmp_path / "outbox.db", tmp_path / "copy.db"
    async with open_sqlite_outbox(path, **FEW) as outbox:
        await append_all(outbox, 3)
        for ending in ("", "-wal"):
            shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    whole = copy.read_bytes()
    copy.write_bytes(b"")
    await is_no_outbox(copy, "log beside it has content")
    copy.unlink()
    await is_no_outbox(copy, "log beside it has content")
    copy.write_bytes(whole)
    assert (await outbox_json(copy, "stats"))["pending"] == 3  # the log is read too
    async with open_sqlite_outbox(copy, **FEW) as outbox:
        assert (await outbox.inspector.stats()).pending == 3


NEVER_GIVES_UP = LockTimings(dead_holder_seconds=10**6)
HOLD = """
import os, sys
from pathlib import Path
from inngest_outbox.outbox.sqlite.file.lock import sole_writer
memory = bytearray(200_000_000)  # the kernel clears it away before the lock goes
with sole_writer(Path(sys.argv[1]), socket="/nowhere"):
    print("held", flush=True)
    sys.stdin.read()
"""
LEAVE_A_CHILD = """
import os, sys
from pathlib import Path
from inngest_outbox.outbox.sqlite.file.lock import sole_writer
with sole_writer(Path(sys.argv[1]), socket="/nowhere"):
    if os.fork():
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holding(path: Path, program: str = HOLD) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.stdin.close()


def refusal(path: Path) -> str:
    """What a start says, which must not wait for anything."""
    said: list[str] = []

    def start() -> None:
        try:
            with sole_writer(path, socket="/nowhere", timings=NEVER_GIVES_UP):
                said.append("it started")
        except OutboxBusyError as error:
            said.append(str(error))

    thread = Thread(target=start, daemon=True)
    thread.start()
    thread.join(60)
    assert said, "it waits"
    return said[0]


def test_a_start_just_after_a_sigkill_gets_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for _ in range(2):
        with holding(path) as holder:
            holder.kill()
            with sole_writer(path, socket="/nowhere", timings=NEVER_GIVES_UP):
                pass


def test_a_start_beside_a_living_process_says_so_at_once(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with holding(path) as holder:
        assert f"(pid {holder.pid}) serves" in refusal(path)
        os.kill(holder.pid, signal.SIGSTOP)
        try:
            assert f"(pid {holder.pid}) serves" in refusal(path)
        finally:
            os.kill(holder.pid, signal.SIGCONT)


def test_a_start_whose_file_is_held_after_the_death_of_its_process_says_so_at_once(
    tmp_path: Path,
) -> None:
    """A child that it left still has the lock."""
    path = tmp_path / "outbox.db"
    with holding(path, LEAVE_A_CHILD) as gone:
        assert gone.wait(10) == 0
        assert f"(pid {gone.pid}) serves" in refusal(path)
