"""The fake Inngest on port 8288, with workers connected to it.

The events of the documents' function start a run on a worker once one has registered; the REST API
shows its status and output. Stored events are kept in a file, as `inngest start` keeps them.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web
from worker_gateway import Run, WorkerGateway

from service.dev.fake_inngest.ledger import Arrival
from service.dev.fake_inngest.server import FakeInngest, FakeOptions

PORT = 8288
TRIGGER = "documents/aws.index"
STORED = Path("/inngest/events.db")


class Inngest(FakeInngest):
    """The fake, with runs."""

    def __init__(self) -> None:
        super().__init__("0.0.0.0", PORT, FakeOptions(store_path=STORED))
        self.gateway = WorkerGateway()
        self.runs: dict[str, Run] = {}
        self._store_only = self.store.store
        self.store.store = self._store_and_run  # type: ignore[method-assign]

    def build_app(self) -> web.Application:
        app = super().build_app()
        self.gateway.add_routes(app)
        app.router.add_get("/health", _healthy)
        app.middlewares.append(self._show_runs)
        return app

    def _store_and_run(self, arrivals: Sequence[Arrival], now_ms: int) -> None:
        self._store_only(arrivals, now_ms)
        for arrival in arrivals:
            started = self.store.runs_of(arrival.server_id)
            if started and arrival.name == TRIGGER and self.gateway.registered:
                run = Run(started[0].run_id, json.loads(arrival.event))
                self.runs[arrival.server_id] = run
                self.gateway.begin(run)

    @web.middleware
    async def _show_runs(self, request: web.Request, handler: web.Handler) -> web.StreamResponse:
        kind, _, internal_id = request.path.removesuffix("/runs").rpartition("/")
        del kind
        run = self.runs.get(internal_id)
        if run is None or not request.path.endswith("/runs"):
            return await handler(request)
        shown = {"run_id": run.run_id, "event_id": internal_id, "status": run.status}
        return web.json_response({"data": [{**shown, "output": run.output}]})


async def _healthy(_: web.Request) -> web.Response:
    return web.json_response({"status": 200})


async def main() -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Inngest():
        await stop.wait()


asyncio.run(main())
