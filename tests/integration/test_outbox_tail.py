"""`outbox tail` as a process: it follows, survives what is lost meanwhile, and ends with Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from inngest_outbox.console.commands import tail
from inngest_outbox.outbox.event import Event
from tests.support.outbox_command import SCRIPT, outbox_command
from tests.support.rows import bury
from tests.support.storage import (
    PATIENCE_SECONDS,
    Outbox,
    SqliteStorage,
    append_all,
    claim,
    deliver,
    event,
    storage_at,
)
from tests.support.words import EVIL

Process = asyncio.subprocess.Process


@pytest.fixture
async def outbox(store_url: str) -> AsyncIterator[Outbox]:
    async with storage_at(store_url).open() as opened:
        yield opened


@contextlib.asynccontextmanager
async def tailing(store_url: str, *options: str) -> AsyncIterator[Process]:
    """The command, which is killed when it has not ended by itself."""
    process = await asyncio.create_subprocess_exec(
        *SCRIPT,
        "tail",
        "--interval",
        "100ms",
        "--url",
        store_url,
        *options,
        # It writes each line out by itself, and in UTF-8.
        env=os.environ | {"PYTHONUNBUFFERED": "", "PYTHONIOENCODING": "ascii"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await process.stdout.readline()).decode()


async def test_it_follows_one_event_from_its_acceptance_until_ctrl_c(
    store_url: str, outbox: Outbox
) -> None:
    [waiting] = await append_all(outbox, 1)
    async with tailing(store_url, "--json") as process:
        assert json.loads(await line(process))["id"] == waiting.id
        new = event("u-2")
        await outbox.intake.append(new)
        accepted = json.loads(await line(process))
        assert (accepted["what"], accepted["id"]) == ("accepted", new.id)
        assert (accepted["at"], accepted["userId"]) == (new.accepted_at_ms, "u-2")
        await deliver(outbox, await claim(outbox))
        told = {}
        while set(told.values()) != {"delivered"} or len(told) < 2:
            change = json.loads(await line(process))
            told[change["id"]] = change["what"]
        assert set(told) == {waiting.id, new.id}
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_lines_for_people_have_the_reason_and_no_control_character(
    store_url: str, outbox: Outbox
) -> None:
    async with tailing(store_url, "--state", "dead", "--lines", "1") as process:
        [dead] = await bury(outbox)
        shown = await line(process)
        assert shown[8:].split()[:3] == ["dead", dead, "rejected:"]
        await bury(outbox, 1, EVIL)
        shown = await line(process)
        assert (shown.removesuffix("\n").isprintable(), "gnp.exe" in shown) == (True, True)


async def test_it_ends_quietly_when_nobody_reads_it(store_url: str, outbox: Outbox) -> None:
    async with tailing(store_url, "--json") as process:
        await append_all(outbox, 1)
        await line(process)
        process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        await append_all(outbox, 1)
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.stderr.read() == b""
            await process.wait()


def swapped(path: Path, content: bytes) -> bytes:
    """What was in the file, which has `content` from one moment to the next."""
    before = path.read_bytes()
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)
    return before


async def test_each_outage_of_the_outbox_is_told_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 1)
    broken = b"x" * 5_000
    sound, new = [swapped(path, broken)], list[Event]()
    swapped(path, sound[0])
    looks = iter([broken, broken, broken, b"", broken, b""])

    async def change(_: float) -> None:
        content = next(looks, None)
        if content is None:
            raise KeyboardInterrupt
        swapped(path, content or sound[-1])
        if not content:
            async with SqliteStorage(path).open() as outbox:
                new.extend(await append_all(outbox, 1))
            sound.append(swapped(path, broken))
            swapped(path, sound[-1])

    monkeypatch.setattr(tail, "asyncio", SimpleNamespace(run=asyncio.run, sleep=change))
    _, out, err = await outbox_command(path, "tail", "--json")
    fault = "The outbox's file is not an SQLite database. (SQLITE_NOTADB)"
    assert err == 2 * f"outbox: {fault} Looking again.\n"
    told = [json.loads(line)["id"] for line in out.splitlines() if line.startswith("{")]
    assert told[1:] == [one.id for one in new]


async def test_its_looks_leave_time_for_anything_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float]()

    async def end(seconds: float) -> None:
        waits.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(tail, "asyncio", SimpleNamespace(run=asyncio.run, sleep=end))
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 11)
        for options in ([], ["--interval=0s"], ["--interval=50ms", "--json"], ["--interval=3s"]):
            code, out, _ = await outbox_command(path, "tail", *options)
            assert (code, out.count("documents/aws.index")) == (0, 10)
    assert waits == [1.0, 0.1, 0.1, 3.0]


async def test_without_an_outbox_it_says_so(tmp_path: Path) -> None:
    code, _, err = await outbox_command(tmp_path / "none.db", "tail")
    assert (code, "no outbox file" in err) == (2, True)
