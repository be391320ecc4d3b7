"""`python -m inngest_outbox worker`: runs the function on documents, answers health checks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

from aiohttp import web

from inngest_outbox.config.settings import Settings
from inngest_outbox.event_types.types_file import documents_event_name, load_event_types
from inngest_outbox.inngest.address import make_client
from inngest_outbox.inngest.worker import WorkerStatus, run_worker
from inngest_outbox.observe.logs import LogStream
from inngest_outbox.observe.service_manager import ServiceManager
from inngest_outbox.processes.startup import stop_on_signals

_UNREADY = 503


async def serve_functions(settings: Settings, logs: LogStream, health_port: int | None) -> None:
    """Run until SIGTERM or SIGINT; with `health_port`, answer health checks at HOST and there.

    Raises ConfigurationError and OSError.
    """
    event_name = documents_event_name(load_event_types(settings.event_types_file))
    status, stop = WorkerStatus(), stop_on_signals(logs)
    async with contextlib.AsyncExitStack() as stack:
        if health_port is not None:
            health = serve_worker_health(status, settings.host, health_port)
            await stack.enter_async_context(health)
        await stack.enter_async_context(ServiceManager(os.environ).told("Serving the function"))
        await run_worker(settings, make_client(settings), status, event_name, stop)


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
        return web.json_response(body, status=_UNREADY)

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
