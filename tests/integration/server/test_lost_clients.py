"""Work that ends with its client, on the server that `serve` runs."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.web.server.connection import while_connected
from inngest_outbox.web.server.middleware import error_middleware
from inngest_outbox.web.server.server import HttpServer
from tests.support.made_request import made_request
from tests.support.raw_http import connected, listening


class Found:
    """What some work returns."""


class Worker:
    """Answers /found at once and /never never; `found` are the results that are still held."""

    def __init__(self) -> None:
        self.found: weakref.WeakSet[Found] = weakref.WeakSet()
        self.began, self.ended = asyncio.Event(), asyncio.Event()

    async def finds(self, request: web.Request) -> web.Response:
        await while_connected(request, self._find())
        return web.Response()

    async def waits(self, request: web.Request) -> web.Response:
        with pytest.raises(ConnectionError):
            await while_connected(request, self._wait())
        self.ended.set()
        return web.Response()

    async def _find(self) -> Found:
        found = Found()
        self.found.add(found)
        return found

    async def _wait(self) -> None:
        self.began.set()
        await asyncio.Event().wait()


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def url(worker: Worker) -> AsyncIterator[str]:
    app = web.Application(middlewares=[error_middleware(NullRecorder())])
    app.add_routes([web.get("/found", worker.finds), web.get("/never", worker.waits)])
    async with listening(HttpServer(app, NullRecorder())) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("requests", [1, 2])
async def test_work_ends_when_its_client_goes(url: str, worker: Worker, requests: int) -> None:
    async with connected(URL(url).port or 0) as (_, writer):
        writer.write(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n" * requests)
        await worker.began.wait()
        writer.close()
        await worker.ended.wait()


async def test_work_that_is_cancelled_while_its_client_is_there_stays_cancelled() -> None:
    asking = asyncio.create_task(while_connected(made_request(), asyncio.Event().wait()))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_connection_keeps_nothing_of_the_work_of_its_earlier_requests(
    url: str, worker: Worker
) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
        for _ in range(5):
            async with http.get(f"{url}/found") as answer:
                await answer.read()
        gc.collect()
        assert len(worker.found) == 0
