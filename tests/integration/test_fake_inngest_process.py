"""The fake Inngest as a process: until it is told to stop, or at once where its port is taken."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from tests.support.batches import EVENTS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_runs_as_a_process_until_it_is_told_to_stop(http, number):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.fake_inngest", "--port", "0", "--keys", "good,better"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
    url = line.split()[-1]
    async with http.post(f"{url}/e/better", json=EVENTS) as response:
        assert response.status == 200
    async with http.post(f"{url}/e/other", json=EVENTS) as response:
        assert response.status == 401
    process.send_signal(number)
    await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0


async def test_a_port_that_is_taken_ends_the_process_with_a_sentence(inngest_api):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.fake_inngest", "--port", inngest_api.url.split(":")[-1]),
        stderr=asyncio.subprocess.PIPE,
    )
    _, words = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert b"can't listen" in words
    assert b"Traceback" not in words
