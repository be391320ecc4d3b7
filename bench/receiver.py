"""The Event API as far as an idle benchmark needs it: it takes events, and notes when.

A process of its own, as Inngest is: what a client does with its answer does not hold it up. The
times are of the monotonic clock, which Linux gives to all processes alike.
"""

from __future__ import annotations

import asyncio
import signal
import time

import uvloop
from aiohttp import web


class Receiver:
    """Counts arrivals; `last` is when the newest came, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0.0

    async def take(self, request: web.Request) -> web.Response:
        await request.read()
        self.last = time.monotonic()
        self.count += 1
        return web.json_response({"status": 200, "ids": ["01JDH2W7D5ZJ5Z5Z5Z5Z5Z5Z5Z"]})

    async def tell(self, request: web.Request) -> web.Response:
        return web.json_response({"count": self.count, "last": self.last})


async def serve(app: web.Application) -> None:
    """Serve `app` on a free port, which is printed, until a signal ends it."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"Listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await stop.wait()
    await runner.cleanup()


async def _serve() -> None:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/e/{key}", receiver.take)
    app.router.add_get("/arrivals", receiver.tell)
    await serve(app)


if __name__ == "__main__":
    uvloop.run(_serve())
