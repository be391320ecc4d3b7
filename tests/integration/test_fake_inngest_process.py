"""The fake Inngest as a process: until it is told to stop, or at once where its port is taken."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_runs_as_a_process_until_it_is_told_to_stop(http, number):
    async with fake_process("--keys", "good,better") as (process, url):
        async with http.post(f"{url}/e/better", json=EVENTS) as response:
            assert response.status == 200
        async with http.post(f"{url}/e/other", json=EVENTS) as response:
            assert response.status == 401
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0


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
