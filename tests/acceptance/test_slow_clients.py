"""Clients that send a byte now and then keep nobody from being answered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.beside import beside
from tests.support.fleet import environment, running
from tests.support.storage import eventually
from tests.support.trial import trial

CLIENTS = 500
HEAD = b"POST /api/route HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
BODY = (
    b"POST /api/route HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\nCookie: %s\r\n\r\n"
)


async def session_cookie(url: str) -> bytes:
    """Only who is signed in is waited for; others are answered before their body is read."""
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/auth/dev-login", json={"email": "slow@example.com"}) as answer,
    ):
        return answer.headers["Set-Cookie"].partition(";")[0].encode()


@contextlib.asynccontextmanager
async def dripping(url: str, clients: int) -> AsyncIterator[None]:
    """So many connections, half of which drip a head and half a body, until the end."""
    address = urlsplit(url)
    begun = []

    async def drip(start: bytes) -> None:
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        begun.append(writer)
        writer.write(start)
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(0.5)
                writer.write(b"x")
                await writer.drain()

    body = BODY % await session_cookie(url)
    starts = itertools.islice(itertools.cycle((HEAD, body)), clients)
    try:
        async with beside(*map(drip, starts)):
            await eventually(lambda: len(begun) == clients)
            yield
    finally:
        for writer in begun:
            writer.transport.abort()


async def test_500_slow_clients_keep_nobody_from_being_answered(tmp_path: Path) -> None:
    async with (
        trial(tmp_path / "outbox.db") as one,
        one.serving(),
        dripping(one.load.url, CLIENTS),
    ):
        async with one.load.running():
            await one.load.takes(300)
        assert not one.load.refused
        assert not one.load.broken
        await one.drained()


async def test_a_stop_does_not_wait_for_slow_heads(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url)
    async with running("serve", environment=settings) as service:
        address = urlsplit(service.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(HEAD)
        await writer.drain()
        assert await service.stop() == 0
        writer.transport.abort()
