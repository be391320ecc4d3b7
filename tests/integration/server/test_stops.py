"""A stop answers what was read."""

from __future__ import annotations

import asyncio

from aiohttp import web

from service.observe.recorder import NullRecorder
from service.web.server.server import HttpServer
from tests.support.storage import PATIENCE_SECONDS

ASK = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_pipelined_requests_that_were_read_are_answered_by_a_stop() -> None:
    began, may_answer, answered = asyncio.Event(), asyncio.Event(), 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal answered
        began.set()
        await may_answer.wait()
        answered += 1
        return web.Response(text=f"answer {answered}")

    app = web.Application()
    app.add_routes([web.get("/", answer)])
    server = HttpServer(app, NullRecorder())
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses[0][1])
    writer.write(ASK + ASK)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await began.wait()
        stopping = asyncio.create_task(server.cleanup())
        await asyncio.sleep(0)
        may_answer.set()
        told = await reader.read()
        await stopping
    writer.close()
    assert told.endswith(b"answer 2")
