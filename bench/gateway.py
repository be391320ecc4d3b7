"""`python -m bench.gateway`: an Event API behind a gateway that fails some requests.

With `--failing` a share of the requests, by chance; always those with an event whose document's
name starts with `bad`, with `--status` (400 as the API refuses: up to the first bad one). Counts
what came, and how long after its acceptance each good event came.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time

import msgspec
from aiohttp import web

_GOOD = b'"documentName":"'
_BAD = b'"documentName":"bad'


class _Event(msgspec.Struct):
    ts: int
    data: msgspec.Raw


class Gateway:
    def __init__(self, failing: float, status: int) -> None:
        self._failing = failing
        self._status = status
        self._chance = random.Random(1)
        self._arrivals = 0
        self._requests = 0
        self._waits: list[float] = []

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/e/{key}", self._take)
        app.router.add_get("/fake-inngest/stats", self._stats)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self._requests += 1
        if self._chance.random() < self._failing:
            return web.Response(status=500)
        count = body.count(_GOOD)
        if _BAD in body or count < 100:
            return self._sort(body)
        return self._accept(count)

    def _sort(self, body: bytes) -> web.Response:
        events = msgspec.json.decode(body, type=list[_Event])
        bad = [_BAD in bytes(event.data) for event in events]
        good = bad.index(True) if True in bad else len(events)
        if good < len(events) and self._status != 400:
            return web.Response(status=self._status)
        now = time.time()
        self._waits += [now - event.ts / 1000 for event in events[:good]]
        if good < len(events):
            self._arrivals += good
            error = {"ids": ["01"] * good or [""], "status": 400, "error": "bad"}
            return web.json_response(error, status=400)
        return self._accept(good)

    def _accept(self, count: int) -> web.Response:
        self._arrivals += count
        return web.json_response({"ids": ["01"] * count or [""], "status": 200})

    async def _stats(self, request: web.Request) -> web.Response:
        waits = sorted(self._waits)
        return web.json_response(
            {
                "arrivals": self._arrivals,
                "requests": self._requests,
                "median_wait": statistics.median(waits) if waits else None,
                "p95_wait": waits[int(len(waits) * 0.95)] if waits else None,
            }
        )


async def _serve(options: argparse.Namespace) -> None:
    gateway = Gateway(options.failing, options.status)
    runner = web.AppRunner(gateway.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]} ", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway")
    parser.add_argument("--failing", type=float, default=0.0, help="share of requests")
    parser.add_argument("--status", type=int, default=500, help="for requests with a bad event")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
