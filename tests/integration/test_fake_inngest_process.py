"""The fake Inngest as a process: until it is told to stop, or at once where its port is taken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.batches import EVENTS
from tests.support.storage import PATIENCE_SECONDS


@contextlib.asynccontextmanager
async def fake_process(*options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process and its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.dev.fake_inngest", "--port", "0", *options),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)).decode()
        yield process, line.split()[-1]
    finally:
        if process.returncode is None:
            process.kill()
        await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)


async def held(http: aiohttp.ClientSession, url: str, ulid: str) -> None:
    """Wait until the event is stored."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with http.get(f"{url}/v1/events/{ulid}") as response:
                if (await response.json())["data"]:
                    return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_runs_as_a_process_until_it_is_told_to_stop(http, number):
    async with fake_process("--keys", "good,better") as (process, url):
        async with http.post(f"{url}/e/better", json=EVENTS) as response:
            assert response.status == 200
        async with http.post(f"{url}/e/other", json=EVENTS) as response:
            assert response.status == 401
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_was_stored_outlives_a_stop_and_what_was_only_answered_does_not(
    http, tmp_path: Path, number
):
    options = ("--store", str(tmp_path / "events.db"), "--store-rate", "50")
    async with fake_process(*options) as (process, url):
        events = [{"name": "a", "id": f"e{n}"} for n in range(2_000)]
        async with http.post(f"{url}/e/key", data=json.dumps(events)) as response:
            answered = (await response.json(content_type=None))["ids"]
        await held(http, url, answered[0])
        process.send_signal(number)
        await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
    async with fake_process(*options) as (_, url):
        async with http.get(f"{url}/fake-inngest/stats") as response:
            stored = (await response.json())["stored"]
        async with http.get(f"{url}/v1/events/{answered[-1]}") as response:
            assert (await response.json())["status"] == 404
    assert 0 < stored < len(answered) == 2_000


async def test_a_port_that_is_taken_ends_the_process_with_a_sentence(inngest_api):
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "service.dev.fake_inngest",
            "--port",
            inngest_api.url.split(":")[-1],
        ),
        stderr=asyncio.subprocess.PIPE,
    )
    _, words = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode == 1
    assert b"can't start" in words
    assert b"Traceback" not in words
