"""A fake of Inngest's Event API: `POST /e/{key}`, as Inngest v1.43 answers it.

Serves `make run`, the demo and the tests; it runs no functions. The invariant: an id is answered
if and only if its event is in the ledger, unless a scripted fault says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

import msgspec
from aiohttp import web

from service.fake_inngest.control import add_control_routes
from service.fake_inngest.events import Reading, count_events, read_events
from service.fake_inngest.fault_effects import apply_fault, empty_ids, reset, respond, stores_events
from service.fake_inngest.faults import Action, FaultScript, kind_of
from service.fake_inngest.ledger import Ledger, Request
from service.fake_inngest.ulids import first_ulid, ulids

SEED_HEADER = "x-inngest-event-id-seed"
_MAX_BODY_BYTES = 1024 * 1024 * 1024
_SHUTDOWN_SECONDS = 0.5

_encode = msgspec.json.Encoder().encode


class Reply(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The body of an answer; `ids` is absent where the request was refused before its events."""

    status: int
    ids: list[str] = []
    error: str | None = None


class EventApi:
    """The fake Inngest, a server on `host` and `port` (0: any free one).

    `keys` are the event keys that are accepted, None accepts any. `keys_required` answers as a
    self-hosted server that was started without keys. With `sink`, arrays are only counted and
    answered: nothing is checked or kept and no fault is met (for benchmarks). `await start()`
    after `await close()` serves the same port with the same ledger again.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        keys: Collection[str] | None = None,
        keys_required: bool = False,
        sink: bool = False,
        ledger: Ledger | None = None,
    ) -> None:
        self.ledger = ledger or Ledger()
        self.faults = FaultScript()
        self.keys = keys
        self._host = host
        self._port = port
        self._keys_required = keys_required
        self._sink = sink
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Its origin. It stays the same over a restart."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
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
        self._port = runner.addresses[0][1]

    async def close(self) -> None:
        """Let go of hanging requests, cut all connections, refuse new ones. Safe to repeat."""
        runner, self._runner = self._runner, None
        self.faults.release()
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def build_app(self) -> web.Application:
        """The application: the Event API and the control endpoints."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/e/{key}", self._sink_events if self._sink else self._take_events)
        add_control_routes(app, self.ledger, self.faults)
        return app

    async def _take_events(self, request: web.Request) -> web.StreamResponse:
        if (unread := self.faults.take_unread()) is not None:
            self._record(request, 0, Reading([]), 0, unread.action)
            return reset(request)
        body = await request.read()
        reading = read_events(body)
        fault = self.faults.take(reading, len(body))
        taken = apply_fault(reading, fault) if fault else reading
        stores = fault is None or stores_events(fault.action)
        reply = self._accept(request, taken) if stores else Reply(500)
        accepted = sum(map(bool, reply.ids))
        self._record(request, len(body), reading, accepted, fault.action if fault else None)
        if fault is None:
            return _response(reply)
        if empty := empty_ids(fault, len(reading.events)):
            reply.ids[accepted:] = empty
        return await respond(fault.action, request, self.faults, _response(reply))

    async def _sink_events(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        try:
            count = count_events(body)
        except msgspec.DecodeError as error:
            return _response(Reply(400, [""], str(error)))
        ids = ulids(self._first_ulid(request), count)
        self.ledger.count_only(count)
        return _response(Reply(200, ids or [""]))

    def _accept(self, request: web.Request, reading: Reading) -> Reply:
        if self._keys_required:
            return Reply(503, [], "event keys are required to send events to this server")
        if self.keys is not None and request.match_info["key"] not in self.keys:
            return Reply(401, [], "Event key not found")
        ids = ulids(self._first_ulid(request), len(reading.events))
        self.ledger.store(reading.events, ids)
        status = 400 if reading.error else 200
        return Reply(status, ids or [""], reading.error)

    def _first_ulid(self, request: web.Request) -> int:
        return first_ulid(request.headers.get(SEED_HEADER), self.ledger.now_ms())

    def _record(
        self,
        request: web.Request,
        body_bytes: int,
        reading: Reading,
        accepted: int,
        action: Action | None,
    ) -> None:
        key = request.match_info["key"]
        kind = kind_of(action) if action else None
        self.ledger.record(Request(key, body_bytes, len(reading.events), accepted, kind))


def _response(reply: Reply) -> web.Response:
    # The API calls its JSON text/plain.
    return web.Response(
        status=reply.status, body=_encode(reply), content_type="text/plain", charset="utf-8"
    )
