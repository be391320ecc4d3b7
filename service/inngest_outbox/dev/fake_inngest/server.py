"""The fake Inngest as a server: the Event API, the REST API and the control endpoints.

Serves `make run`, the demo and the tests. It calls no workers: the runs that it shows are those of
the functions that `runs.declare` names, else of one that every event starts and that ends at once.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aiohttp import web

from inngest_outbox.dev.fake_inngest.control import Control
from inngest_outbox.dev.fake_inngest.event_api import EventApi
from inngest_outbox.dev.fake_inngest.event_store import EventStore, Storing
from inngest_outbox.dev.fake_inngest.faults import FaultScript
from inngest_outbox.dev.fake_inngest.ledger import Ledger, MovableClock
from inngest_outbox.dev.fake_inngest.rest_api import Guard, RestApi, SigningKey
from inngest_outbox.dev.fake_inngest.runs_api import RunsApi

_MAX_BODY_BYTES = 1024 * 1024 * 1024
_SHUTDOWN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """The behaviour of the fake.

    `keys` and `sink` are EventApi's. `signing_key` None asks for none, as a dev server.
    `store_rate` is how many events a second are stored behind the answers, None stores before it
    answers; `store_path` keeps what was stored over a stop.
    """

    keys: Collection[str] | None = None
    sink: bool = False
    signing_key: str | None = None
    store_rate: float | None = None
    store_path: Path | None = None


class FakeInngest:
    """A server on `host` and `port` (0: any free one).

    `await close()` then `await start()` is a restart at the same address, which nobody else gets
    meanwhile: what was stored is still there, what was only answered is lost.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, options: FakeOptions = FakeOptions()
    ) -> None:
        self.clock = MovableClock()
        self.ledger = Ledger(clock=self.clock)
        self.faults = FaultScript()
        self.store = EventStore(options.store_path)
        self.storing = Storing(self.store, self.clock, options.store_rate)
        key = SigningKey(options.signing_key) if options.signing_key else None
        self.runs = self.store.runs
        self.questions = Guard(self.clock, key)
        self.rest_api = RestApi(self.store, self.clock, self.questions)
        self.event_api = EventApi(
            self.ledger,
            self.storing,
            self.faults,
            keys=options.keys,
            sink=options.sink,
        )
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._kept: socket.socket | None = None

    @property
    def url(self) -> str:
        """Its origin. It stays the same over a restart."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        if self._port == 0:
            self._keep_a_port()
        # The Event API doesn't understand gzip, and its access log would hold the key.
        runner = web.AppRunner(
            self.build_app(),
            access_log=None,
            auto_decompress=False,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await runner.setup()
        self._runner = runner
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=1024).start()
        except OSError:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of hanging requests, cut all connections, lose what is not stored. Repeatable."""
        runner, self._runner = self._runner, None
        self.faults.release()
        if runner is not None:
            await runner.cleanup()
        await self.storing.stop()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self._let_go()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
        self._let_go()

    def _keep_a_port(self) -> None:
        """Take a free port; a socket that does not listen keeps it from others over a restart."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._kept = socket.socket(family)
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind((self._host, 0))
        self._port = self._kept.getsockname()[1]

    def _let_go(self) -> None:
        self.store.close()
        if self._kept is not None:
            self._kept.close()

    def build_app(self) -> web.Application:
        """The application with all its endpoints."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_get("/health", _healthy)
        self.event_api.add_routes(app)
        self.rest_api.add_routes(app)
        RunsApi(self.runs, self.clock, self.questions).add_routes(app)
        Control(self.ledger, self.faults, self.store, self.storing, self.clock).add_routes(app)
        return app


async def _healthy(_: web.Request) -> web.Response:
    return web.json_response({"status": 200, "message": "OK"})
