"""The fake Inngest as a process that can be stopped and started at one address."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.confirmed_delivery import SIGNING_KEY
from tests.support.fleet import ROOT

_PATIENCE_SECONDS = 30.0


class InngestProcess:
    """Stores behind its answers at `rate` events a second, into `store`, which outlives it."""

    def __init__(self, store: Path, *, rate: float | None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._options = ["--port", str(self._port), "--store", str(store)]
        self._options += ["--signing-key", SIGNING_KEY]
        self._options += ["--store-rate", str(rate)] if rate else []
        self._process: asyncio.subprocess.Process | None = None
        self.lost = 0

    async def start(self) -> None:
        """Start, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service.fake_inngest", *self._options),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._process.stdout
        async with asyncio.timeout(_PATIENCE_SECONDS):
            assert b"listens" in await self._process.stdout.readline()

    async def stop(self, number: signal.Signals) -> int:
        """Stop by a signal; how many answered events were not stored then."""
        assert self._process
        queued = int((await self.stats())["queued"])
        self.lost += queued
        self._process.send_signal(number)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._process.communicate()
        return queued

    async def stats(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.url}/fake-inngest/stats") as answer,
        ):
            figures: dict[str, Any] = await answer.json()
            return figures


@contextlib.asynccontextmanager
async def inngest_process(store: Path, *, rate: float | None) -> AsyncIterator[InngestProcess]:
    one = InngestProcess(store, rate=rate)
    await one.start()
    try:
        yield one
    finally:
        if one._process and one._process.returncode is None:
            await one.stop(signal.SIGKILL)
