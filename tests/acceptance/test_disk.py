"""The running service while its disk is full, held by another, limited or read-only."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from service.stand_in.faults import Answer
from tests.acceptance.fleet import environment, running
from tests.acceptance.trial import Trial, trial, until

HOLD = """
import sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""
LARGE = "x" * 1000


@contextlib.asynccontextmanager
async def held(path: Path) -> AsyncIterator[None]:
    """Another process holds the file's write lock."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOLD,
        str(path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert await process.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


def run(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not run("mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)):
        pytest.skip("this machine mounts no tmpfs for us")
    yield folder
    run("umount", "-l", str(folder))


async def readiness(one: Trial) -> tuple[int, list[str]]:
    async with aiohttp.ClientSession() as http, http.get(f"{one.load.url}/readyz") as answer:
        return answer.status, (await answer.json())["faults"]


def refused(one: Trial) -> bool:
    return bool(one.load.refused)


async def ends_well(one: Trial) -> None:
    await one.drained()
    await one.settled()
    assert one.rows()["pending"] == one.rows()["dead"] == 0
    for status, code, retry_after in one.load.refused:
        assert (status, code) == (503, "outbox_unavailable")
        assert retry_after is not None
        assert int(retry_after) > 0
    assert one.load.slowest_seconds < 6


async def test_a_file_that_another_process_holds_costs_waits_of_seconds_and_loses_nothing(
    tmp_path: Path,
) -> None:
    async with trial(tmp_path / "outbox.db") as one, one.serving():
        async with one.load.running():
            await one.load.takes(20)
            async with held(one.path):
                await until(lambda: refused(one), 5)
                await asyncio.sleep(3)
                status, faults = await readiness(one)
                assert status == 503
                assert any("Another process" in fault for fault in faults)
            await one.load.takes(20)
        assert (await readiness(one))[0] == 200
        await ends_well(one)


async def test_a_disk_that_the_outbox_fills_keeps_room_for_completions(small_disk: Path) -> None:
    async with trial(small_disk / "outbox.db", OUTBOX_MAX_PENDING="1000000") as one:
        one.inngest.faults.add(Answer(500), times=None)
        one.load.name = LARGE
        async with one.serving():
            async with one.load.running():
                await until(lambda: refused(one), 60)
            status, faults = await readiness(one)
            assert status == 503
            assert "nearly full" in " ".join(faults)
            one.inngest.faults.clear()
            await ends_well(one)


async def test_a_disk_that_others_fill_loses_nothing_and_is_used_again(small_disk: Path) -> None:
    async with trial(small_disk / "outbox.db") as one, one.serving():
        async with one.load.running():
            await one.load.takes(20)
            ballast = small_disk / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
            await until(lambda: refused(one), 10)
            await one.drained()
            ballast.unlink()
            await one.load.takes(20)
        await ends_well(one)


async def test_a_file_that_may_not_grow_loses_nothing_and_is_used_again(tmp_path: Path) -> None:
    async with trial(tmp_path / "outbox.db") as one, one.serving() as service:
        pid = service.process.pid
        async with one.load.running():
            await one.load.takes(20)
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (300_000, hard))
            one.load.name = LARGE
            await until(lambda: refused(one), 20)
            await asyncio.sleep(1)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            await one.load.takes(20)
        await ends_well(one)


async def test_a_file_that_becomes_read_only_loses_nothing_and_is_used_again(
    tmp_path: Path,
) -> None:
    async with trial(tmp_path / "outbox.db") as one, one.serving():
        files = [str(one.path), f"{one.path}-wal"]
        async with one.load.running():
            await one.load.takes(20)
            if not run("chattr", "+i", *files):
                pytest.skip("this file system knows no immutable files")
            try:
                await until(lambda: refused(one), 10)
                await asyncio.sleep(1)
            finally:
                run("chattr", "-i", *files)
            await one.load.takes(20)
        await ends_well(one)


async def test_a_folder_that_can_not_be_written_ends_the_start_with_2_and_a_sentence(
    small_disk: Path,
) -> None:
    run("mount", "-o", "remount,ro", str(small_disk))
    settings = environment(f"sqlite:///{small_disk / 'outbox.db'}", "http://127.0.0.1:1")
    async with running("serve", environment=settings, ready=r"Read-only|can't") as service:
        assert await service.ended() == 2
    assert "Traceback" not in "".join(service.lines)


async def test_a_second_service_on_one_file_ends_with_2_and_a_sentence(tmp_path: Path) -> None:
    async with trial(tmp_path / "outbox.db") as one, one.serving() as first:
        settings = {**one.settings, "PORT": "0"}
        async with running("serve", environment=settings, ready="exactly one") as second:
            assert await second.ended() == 2
        assert f"pid {first.process.pid}" in "".join(second.lines)
        assert "Traceback" not in "".join(second.lines)
        async with one.load.running(1):
            await one.load.takes(3)
        await ends_well(one)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
async def test_a_sync_precedes_each_answer(tmp_path: Path) -> None:
    """One post at a time, traced: between a request's read and its answer lies an fdatasync."""
    log = tmp_path / "trace"
    async with trial(tmp_path / "outbox.db") as one, one.serving() as service:
        async with one.load.running(1):
            await one.load.takes(1)
        calls = "trace=fdatasync,fsync,recvfrom,read,sendto,write,writev,sendmsg"
        command = ("strace", "-f", "-s", "64", "-e", calls, "-o", str(log))
        tracer = await asyncio.create_subprocess_exec(
            *command, "-p", str(service.process.pid), stderr=asyncio.subprocess.PIPE
        )
        assert tracer.stderr is not None
        if b"ttached" not in await tracer.stderr.readline():
            await tracer.wait()
            pytest.skip("strace may not attach here")
        one.load.accepted.clear()
        async with one.load.running(1):
            await one.load.takes(10)
        tracer.terminate()
        await tracer.wait()
    events = [
        "post" if "POST /api/route" in line else "sync" if "sync(" in line else "answer"
        for line in log.read_text().splitlines()
        if re.search(r"POST /api/route|f(data)?sync\(|HTTP/1\.1 200", line)
        and "stand-in" not in line
    ]
    answered = 0
    for index, what in enumerate(events):
        if what == "post" and "answer" in events[index:]:
            until_answer = events[index : events.index("answer", index)]
            assert "sync" in until_answer, events
            answered += 1
    assert answered >= 5, events
