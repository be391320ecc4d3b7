"""HTTP as bytes on a socket, for requests that no client would send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from service.web.server.body_budget import body_budget_key
from service.web.server.server import HttpServer
from tests.support.storage import PATIENCE_SECONDS, eventually


@contextlib.asynccontextmanager
async def listening(server: HttpServer) -> AsyncIterator[int]:
    """The port of this server, while it serves. In the end nobody holds a part of it."""
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    made = server.server
    try:
        yield server.addresses[0][1]
    finally:
        await server.cleanup()
    await all_is_given_back(made, server.app)


async def all_is_given_back(server: Any, app: web.Application) -> None:
    """Wait until a server that has stopped has all places, connections and bytes back."""
    admission, shares, budget = server._admission, server._shares, app.get(body_budget_key)

    def taken() -> list[object]:
        places = admission._policy.posts - admission._free_posts
        found = [places, *admission._waiting_posts, shares._peers, shares._counts, shares._idle]
        found += [shares._clients]
        if budget:
            found += [budget._free // 4 - budget._owner_bytes, budget._owners, budget._waiting]
        return [one for one in found if one]

    await eventually(taken, lambda some: some == [])


@contextlib.asynccontextmanager
async def connected(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client of this port, which has PATIENCE_SECONDS for all that it does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield reader, writer
    finally:
        writer.close()


async def send(port: int, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    async with connected(port) as (reader, writer):
        writer.write(raw)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    await writer.wait_closed()
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body
