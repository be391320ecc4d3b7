"""An Event API that takes everything and remembers when each event came."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer


class _Event(msgspec.Struct):
    id: str


_DECODER = msgspec.json.Decoder(list[_Event])


class Arrivals:
    """When each event came first, in monotonic seconds, by its id."""

    def __init__(self) -> None:
        self.url = ""
        self.repeated = 0
        self.at: dict[str, float] = {}

    async def take(self, request: web.Request) -> web.Response:
        """Answer as Inngest does."""
        now = time.monotonic()
        ids = [event.id for event in _DECODER.decode(await request.read())]
        for one in ids:
            self.repeated += one in self.at
            self.at.setdefault(one, now)
        return web.json_response({"ids": ids, "status": 200})


@contextlib.asynccontextmanager
async def noted_arrivals() -> AsyncIterator[Arrivals]:
    """Listen on a free port until the block ends."""
    arrivals = Arrivals()
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/e/{key}", arrivals.take)
    async with TestServer(app) as server:
        arrivals.url = str(server.make_url("")).rstrip("/")
        yield arrivals
