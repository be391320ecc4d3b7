"""Connections without a request are closed after a while."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from service.observe.recorder import NullRecorder
from service.web.server.server import HttpServer, ServerPolicy
from tests.support.storage import PATIENCE_SECONDS

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(
    seconds: float, began: asyncio.Event, may_answer: asyncio.Event
) -> AsyncIterator[HttpServer]:
    async def answer(_: web.Request) -> web.Response:
        began.set()
        await may_answer.wait()
        return web.Response(text="here")

    app = web.Application()
    app.add_routes([web.get("/", answer)])
    server = HttpServer(app, NullRecorder(), ServerPolicy(keep_alive_seconds=seconds))
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    try:
        yield server
    finally:
        await server.cleanup()


@contextlib.asynccontextmanager
async def client(
    server: HttpServer,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses[0][1])
    try:
        yield reader, writer
    finally:
        writer.close()


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(PATIENCE_SECONDS / 2):
        return await reader.read(1) == b""


@pytest.mark.parametrize("sent", [b"", REQUEST], ids=["never used", "answered"])
async def test_a_connection_without_a_request_is_closed_by_itself(sent: bytes) -> None:
    may_answer = asyncio.Event()
    may_answer.set()
    async with (
        serving(0.5, asyncio.Event(), may_answer) as server,
        client(server) as (reader, writer),
    ):
        writer.write(sent)
        if sent:
            await reader.readuntil(b"here")
        assert await is_closed(reader)
