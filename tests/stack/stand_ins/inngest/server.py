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
from worker_gateway import FUNCTION, Run, WorkerGateway

from inngest_outbox.dev.fake_inngest.functions import Function
from inngest_outbox.dev.fake_inngest.ledger import Arrival
from inngest_outbox.dev.fake_inngest.runs import SCHEDULING_MS
from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions

PORT = 8288
# A worker gives each run its end; until then it runs.
INDEXING = Function(id=FUNCTION, trigger="documents/aws.index", lasts_ms=1 << 50)
STORED = Path("/inngest/events.db")


class Inngest(FakeInngest):
    """The fake, with runs on workers once one has registered."""

    def __init__(self) -> None:
        super().__init__("0.0.0.0", PORT, FakeOptions(store_path=STORED))
        self.gateway = WorkerGateway(self._end)
        self._begun: set[str] = set()
        self._store_only = self.store.store
        self.store.store = self._store_and_run  # type: ignore[method-assign]

    def build_app(self) -> web.Application:
        app = super().build_app()
        self.gateway.add_routes(app)
        return app

    def _store_and_run(self, arrivals: Sequence[Arrival], now_ms: int) -> None:
        if self.gateway.registered:
            self.runs.declare(INDEXING)
        self._store_only(arrivals, now_ms)
        for arrival in arrivals:
            for started in self.runs.of_event(arrival.server_id, now_ms + SCHEDULING_MS):
                if started.function == FUNCTION and started.run_id not in self._begun:
                    self._begun.add(started.run_id)
                    self.gateway.begin(Run(started.run_id, json.loads(arrival.event)))

    def _end(self, run: Run) -> None:
        self.runs.end(run.run_id, run.status, run.output, self.clock.now_ms)


async def main() -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Inngest():
        await stop.wait()


asyncio.run(main())
