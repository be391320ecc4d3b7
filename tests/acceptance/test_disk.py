"""The running service while its disk is full, held by another, limited or read-only."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.fill import fill
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.outbox.sqlite.file.lock import writer_of
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support import disks
from tests.support.fleet import client, environment, running
from tests.support.locked_bytes import WANTED, locked
from tests.support.storage import eventually
from tests.support.trial import trial

CALLS = {
    "post": r"(recvfrom|read)\(.*POST /api/route",
    "sync": r"f(data)?sync(\(\d+\)| resumed>\)) *= 0",
    "answer": r"(sendto|write|writev|sendmsg)\(.*HTTP/1\.1 200",
}


DELIVER_ALL = """
INSERT INTO outbox_done (seq, dead, settled_at_ms, isolated, attempts, sends)
SELECT seq, 0, 1, 0, 1, 1 FROM outbox_ready
"""


def fill_delivered(path: Path, count: int) -> None:
    """An outbox of rows that were delivered long ago."""
    fill(path, count)
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(DELIVER_ALL)
        file.execute("DELETE FROM outbox_ready")
        file.commit()


async def stands_until_it_is_asked(command: asyncio.subprocess.Process, path: Path) -> None:
    """Stop a command until a service waits for its file; else it may have come to its end."""
    command.send_signal(signal.SIGSTOP)
    try:
        await eventually(lambda: locked(path, start=WANTED, length=1))
    finally:
        command.send_signal(signal.SIGCONT)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", 24) as folder:
        yield folder


async def test_a_file_that_another_process_holds_costs_seconds_and_loses_nothing(
    tmp_path: Path,
) -> None:
    (await disks.is_held(tmp_path / "outbox.db", 2)).check()


async def test_a_disk_that_the_outbox_fills_keeps_room_for_completions(tmp_path: Path) -> None:
    (await disks.is_filled_by_the_outbox(tmp_path / "disk")).check()


async def test_a_disk_that_others_fill_loses_nothing_and_is_used_again(tmp_path: Path) -> None:
    (await disks.is_filled_by_others(tmp_path / "disk", 0.2)).check()


async def test_a_file_that_may_not_grow_loses_nothing_and_is_used_again(tmp_path: Path) -> None:
    (await disks.is_limited(tmp_path / "outbox.db", 0.2)).check()


async def test_a_file_that_becomes_read_only_loses_nothing_and_is_used_again(
    tmp_path: Path,
) -> None:
    (await disks.is_read_only(tmp_path / "outbox.db", 0.2)).check()


async def test_a_folder_that_can_not_be_written_ends_the_start_with_2_and_a_sentence(
    small: Path, inngest_api: FakeInngest
) -> None:
    assert disks.run("mount", "-o", "remount,ro", str(small))
    settings = environment(f"sqlite:///{small / 'outbox.db'}", inngest_api.url)
    async with running("serve", environment=settings, ready=r"Read-only|can't") as service:
        assert await service.ended() == 2


async def test_a_link_counts_the_room_of_the_disk_that_has_the_file(
    small: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(small / "outbox.db")
    async with open_sqlite_outbox(link, max_pending=9, max_pending_per_user=9) as outbox:
        assert outbox.failure is None
        (small / "ballast").write_bytes(bytes(14 << 20))
        await eventually(lambda: "nearly full" in str(outbox.failure))


async def test_a_full_disk_at_the_start_is_waited_for(small: Path) -> None:
    async with trial(small / "outbox.db") as one:
        async with one.serving(), one.load.running():
            await one.load.takes(20)
        ballast = small / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        async with one.serving():
            status, faults = await disks.readiness(one)
            assert (status, bool(faults)) == (503, True)
            ballast.unlink()
            async with one.load.running():
                await one.load.takes(20)
            (await disks.verdict(one, "disk full at the start")).check()


async def test_a_service_that_starts_does_not_wait_for_a_purge_without_one(tmp_path: Path) -> None:
    async with trial(tmp_path / "outbox.db") as one:
        await asyncio.to_thread(fill_delivered, one.path, 60_000)
        purging = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "inngest_outbox.console.commands.main", "purge"),
            *("--older-than", "0s", "--yes", "--url", f"sqlite:///{one.path}"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await eventually(lambda: writer_of(one.path) is not None)
            asked = asyncio.create_task(stands_until_it_is_asked(purging, one.path))
            async with one.serving():
                await asked
                assert "A service is starting" in (await purging.stderr.read()).decode()
                assert await purging.wait() == 2
            assert one.rows()["delivered"] > 0  # it had not come to its end
        finally:
            if purging.returncode is None:
                purging.kill()


async def test_a_second_service_on_one_file_ends_with_2_and_a_sentence(tmp_path: Path) -> None:
    async with trial(tmp_path / "outbox.db") as one, one.serving() as first:
        settings = {**one.settings, "PORT": "0"}
        async with running("serve", environment=settings, ready="exactly one") as second:
            assert await second.ended() == 2
        assert f"pid {first.process.pid}" in "".join(second.lines)
        async with one.load.running(1):
            await one.load.takes(3)
        (await disks.verdict(one, "beside a second service")).check()


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
async def test_a_sync_precedes_each_answer(memory_path: Path, inngest_api: FakeInngest) -> None:
    """One post at a time, traced: between a request's read and its answer lies an fdatasync."""
    log = memory_path / "trace"
    settings = environment(f"sqlite:///{memory_path / 'outbox.db'}", inngest_api.url)
    async with running("serve", environment=settings) as service, client() as poster:
        await poster.sign_in(service.url)
        calls = "trace=fdatasync,fsync,recvfrom,read,sendto,write,writev,sendmsg"
        command = ("strace", "-f", "-s", "64", "-e", calls, "-o", str(log))
        tracer = await asyncio.create_subprocess_exec(
            *command, "-p", str(service.process.pid), stderr=asyncio.subprocess.PIPE
        )
        assert tracer.stderr is not None
        if b"ttached" not in await tracer.stderr.readline():
            await tracer.wait()
            pytest.skip("strace may not attach here")
        for _ in range(10):
            assert await poster.post(service.url) == 200
        tracer.terminate()
        await tracer.wait()
    events = [
        kind
        for line in log.read_text().splitlines()
        for kind, pattern in CALLS.items()
        if re.search(pattern, line)
    ]
    answered = 0
    for index, what in enumerate(events):
        if what == "post" and "answer" in events[index:]:
            until_answer = events[index : events.index("answer", index)]
            assert "sync" in until_answer, events
            answered += 1
    assert answered >= 5, events
