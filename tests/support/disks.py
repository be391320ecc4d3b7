"""Trials on sick disks: each scenario runs one trial and gives its verdict."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from inngest_outbox.dev.fake_inngest.faults import ScriptedAnswer
from tests.support.storage import eventually
from tests.support.trial import Trial, Verdict, trial

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
    assert process.stdin is not None
    assert await process.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


def run(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of its own at `folder`."""
    folder.mkdir()
    if not run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", str(folder)):
        pytest.skip("this machine mounts no tmpfs for us")
    try:
        yield folder
    finally:
        run("umount", "-l", str(folder))


def fill_disk(folder: Path) -> None:
    """Leave no byte to others, in a file named `filler`."""
    with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(1 << 20))


async def readiness(one: Trial) -> tuple[int, list[str]]:
    async with aiohttp.ClientSession() as http, http.get(f"{one.load.url}/readyz") as answer:
        return answer.status, (await answer.json())["faults"]


async def is_held(path: Path, seconds: float) -> Verdict:
    """Another process holds the write lock of the file for so long."""
    async with trial(path) as one, one.serving():
        async with one.load.running():
            await one.load.takes(20)
            async with held(one.path):
                await refuses(one)
                await asyncio.sleep(seconds)
                status, _ = await eventually(
                    lambda: readiness(one), lambda seen: "Another process" in " ".join(seen[1])
                )
                assert status == 503
            await one.load.takes(20)
        assert (await readiness(one))[0] == 200
        return await verdict(one, "file held by another process")


async def is_filled_by_the_outbox(folder: Path) -> Verdict:
    """Events fill the disk during an outage; they are all delivered while it is full."""
    with small_disk(folder, 24):
        async with trial(folder / "outbox.db", OUTBOX_MAX_PENDING="1000000") as one:
            (folder / "ballast").write_bytes(bytes(8 << 20))
            one.inngest.faults.add(ScriptedAnswer(500), times=None)
            one.load.name = LARGE
            async with one.serving():
                async with one.load.running():
                    await refuses(one)
                status, faults = await readiness(one)
                assert status == 503
                assert "nearly full" in " ".join(faults)
                one.inngest.faults.clear()
                return await verdict(one, "disk filled by the outbox")


async def is_filled_by_others(folder: Path, seconds: float) -> Verdict:
    """Not a byte is left during an outage; what was accepted is delivered all the same."""
    with small_disk(folder, 256):
        async with trial(folder / "outbox.db") as one, one.serving():
            one.inngest.faults.add(ScriptedAnswer(500), times=None)
            async with one.load.running():
                await one.load.takes(500)
                fill_disk(folder)
                await refuses(one)
                one.inngest.faults.clear()
                await one.drained()
                await asyncio.sleep(seconds)
                (folder / "filler").unlink()
                await one.load.takes(20)
            return await verdict(one, "disk filled by others")


async def is_limited(path: Path, seconds: float) -> Verdict:
    """The files may not grow for so long."""
    async with trial(path) as one, one.serving() as service:
        pid = service.process.pid
        async with one.load.running():
            await one.load.takes(20)
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (300_000, hard))
            one.load.name = LARGE
            await refuses(one)
            await asyncio.sleep(seconds)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            await one.load.takes(20)
        return await verdict(one, "file that may not grow")


async def is_read_only(path: Path, seconds: float) -> Verdict:
    """The files are read-only for so long."""
    async with trial(path) as one, one.serving():
        files = [str(one.path), f"{one.path}-wal"]
        async with one.load.running():
            await one.load.takes(20)
            if not run("chattr", "+i", *files):
                pytest.skip("this file system knows no immutable files")
            try:
                await refuses(one)
                await asyncio.sleep(seconds)
            finally:
                run("chattr", "-i", *files)
            await one.load.takes(20)
        return await verdict(one, "file that is read-only")


async def refuses(one: Trial) -> None:
    """Wait until a post is refused."""
    await eventually(lambda: one.load.refused)


async def verdict(one: Trial, name: str) -> Verdict:
    """All is delivered; what was refused was refused as the contract says."""
    recovery = await one.drained()
    await one.settled()
    rows = one.rows()
    assert rows["pending"] == 0
    for status, code, retry_after in one.load.refused:
        assert (status, code) == (503, "outbox_unavailable")
        assert int(retry_after) > 0
    return one.verdict(name, recovery, rows["dead"])
