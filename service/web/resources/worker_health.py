"""The worker's health endpoint: GET /healthz and GET /readyz on a port of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from service.inngest.worker import WorkerStatus

_UNAVAILABLE = 503


@contextlib.asynccontextmanager
async def serve_worker_health(status: WorkerStatus, host: str, port: int) -> AsyncIterator[int]:
    """Answer at `host` and `port` in this context; yields the port. Port 0 picks a free one.

    /healthz says that the process is alive. /readyz is 200 while the worker is connected to
    Inngest, else 503 with the reason. Raises OSError when the address can't be listened on.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        seconds = round(status.seconds, 1)
        if status.connected:
            return web.json_response({"status": "ready", "seconds": seconds})
        body = {"status": "unready", "faults": [status.reason], "seconds": seconds}
        return web.json_response(body, status=_UNAVAILABLE)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
