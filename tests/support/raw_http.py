"""HTTP as bytes on a socket, for requests that no client would send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from inngest_outbox.web.server.server import HttpServer
from tests.support.storage import PATIENCE_SECONDS


@contextlib.asynccontextmanager
async def listening(server: HttpServer) -> AsyncIterator[int]:
    """The port of this server, while it serves."""
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    try:
        yield server.addresses[0][1]
    finally:
        await server.cleanup()


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
