"""Inngest as a process that can be stopped and started at one address: the fake one, or a real one.

INNGEST_BIN names the program of a real server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.confirmed_delivery import SIGNING_KEY
from tests.support.fleet import ROOT
from tests.support.free_port import free_port
from tests.support.storage import PATIENCE_SECONDS, eventually

REAL = os.environ.get("INNGEST_BIN", "")
EVENT_KEY = "key"


class InngestProcess:
    """Runs `command` with `--port`; what it has stored outlives it."""

    def __init__(self, command: Sequence[str]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*command, "--host", "127.0.0.1", "--port", str(port)]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, and wait until it answers questions."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=ROOT,
        )
        async with aiohttp.ClientSession() as http:
            await eventually(lambda: self._answers(http))

    async def stop(self, number: signal.Signals) -> None:
        """Stop by a signal."""
        assert self._process
        self._process.send_signal(number)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._process.wait()

    async def stats(self) -> dict[str, Any]:
        """The fake one's figures."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.url}/fake-inngest/stats") as answer,
        ):
            figures: dict[str, Any] = await answer.json()
            return figures

    async def close(self) -> None:
        if self._process and self._process.returncode is None:
            await self.stop(signal.SIGKILL)

    async def _answers(self, http: aiohttp.ClientSession) -> bool:
        headers = {"Authorization": f"Bearer {SIGNING_KEY}"}
        with contextlib.suppress(aiohttp.ClientError):
            async with http.get(f"{self.url}/v1/events?limit=1", headers=headers) as answer:
                return answer.status == 200
        return False


@contextlib.asynccontextmanager
async def fake_inngest_process(
    folder: Path, *, rate: float | None
) -> AsyncIterator[InngestProcess]:
    """The fake one; it stores behind its answers at `rate` events a second."""
    command = [
        sys.executable,
        "-m",
        "inngest_outbox.dev.fake_inngest",
        "--signing-key",
        SIGNING_KEY,
    ]
    command += ["--store", str(folder / "inngest.db")]
    command += ["--store-rate", str(rate)] if rate else []
    async with _running(InngestProcess(command)) as one:
        yield one


@contextlib.asynccontextmanager
async def real_inngest_process(folder: Path) -> AsyncIterator[InngestProcess]:
    """A real self-hosted server on SQLite."""
    async with _running(InngestProcess(real_command(folder))) as one:
        yield one


def real_command(folder: Path) -> list[str]:
    """A real self-hosted server's command, but for its address; it keeps its data in `folder`."""
    gateway = ("connect-gateway-port", "connect-gateway-grpc-port", "connect-executor-grpc-port")
    given = {"event-key": EVENT_KEY, "signing-key": SIGNING_KEY.rpartition("-")[2]}
    given |= {"sqlite-dir": str(folder), "tick": "50", "retry-interval": "1"}
    given |= {name: str(free_port()) for name in gateway}
    return [REAL, "start", *(f"--{name}={value}" for name, value in given.items())]


@contextlib.asynccontextmanager
async def _running(one: InngestProcess) -> AsyncIterator[InngestProcess]:
    try:
        await one.start()
        yield one
    finally:
        await one.close()
