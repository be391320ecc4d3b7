"""The HTTP server that `serve` runs, over a small application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from aiohttp import web

from inngest_outbox.errors import NotFoundError
from inngest_outbox.observe.metrics import PrometheusRecorder
from inngest_outbox.web.server.body import read_body
from inngest_outbox.web.server.middleware import error_middleware
from inngest_outbox.web.server.server import HttpServer, ServerPolicy
from tests.support.raw_http import listening
from tests.support.storage import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def no_fault_of_a_connection(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """aiohttp and the loop log what a connection's own methods raise, and go on."""
    yield
    assert [one for one in caplog.get_records("call") if one.levelno >= logging.WARNING] == []


@pytest.fixture
def read_began() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def read_ended() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def recorder() -> PrometheusRecorder:
    return PrometheusRecorder()


@pytest.fixture
def head_seconds() -> float:
    """How long a head may take: only tests of that have it end."""
    return PATIENCE_SECONDS


@pytest.fixture
async def server(read_began, read_ended, recorder, head_seconds):
    async def read(request: web.Request) -> web.Response:
        read_began.set()
        try:
            return web.Response(body=await read_body(request, max_bytes=1024 * 1024))
        finally:
            read_ended.set()

    async def begin(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"begun")
        raise RuntimeError

    async def raw(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def refuse(request: web.Request) -> web.Response:
        raise NotFoundError

    app = web.Application(middlewares=[error_middleware(recorder)])
    app.add_routes([web.post("/read", read), web.post("/raw", raw), web.get("/refuse", refuse)])
    app.add_routes([web.get("/begin", begin)])
    policy = ServerPolicy(shutdown_seconds=5, head_seconds=head_seconds, keep_alive_seconds=3600)
    server = HttpServer(app, recorder, policy)
    async with listening(server):
        yield server


@pytest.fixture
def port(server) -> int:
    return server.addresses[0][1]
