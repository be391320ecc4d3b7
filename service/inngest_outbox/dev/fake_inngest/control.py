"""The fake Inngest's own endpoints: see what arrived, script faults, move its clock.

They are not Inngest's, and speak JSON. There is no sign-in: only a client that reaches the server
under a loopback name is answered, and no script of another site (DNS rebinding, forged requests).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from inngest_outbox.dev.fake_inngest.event_store import EventStore, Storing
from inngest_outbox.dev.fake_inngest.faults import Fault, FaultScript
from inngest_outbox.dev.fake_inngest.ledger import Arrival, Ledger, MovableClock

_DEFAULT_LIMIT = 100
_Handler = Callable[[web.Request], Awaitable[web.Response]]


class ClockMove(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By how many seconds to move the clock."""

    seconds: float


class StoreRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The events to store a second; None stores before the answer."""

    rate: float | None


class Control:
    """The handlers under `/fake-inngest/`, and a line at `/` that says what this is."""

    def __init__(
        self,
        ledger: Ledger,
        script: FaultScript,
        store: EventStore,
        storing: Storing,
        clock: MovableClock,
    ) -> None:
        self._ledger = ledger
        self._script = script
        self._store = store
        self._storing = storing
        self._clock = clock

    def add_routes(self, app: web.Application) -> None:
        """Add the endpoints."""
        routes: list[tuple[str, str, _Handler]] = [
            ("GET", "/", self._hello),
            ("GET", "/fake-inngest/events", self._show_events),
            ("DELETE", "/fake-inngest/events", self._forget_events),
            ("GET", "/fake-inngest/stats", self._show_stats),
            ("GET", "/fake-inngest/faults", self._show_faults),
            ("POST", "/fake-inngest/faults", self._add_fault),
            ("DELETE", "/fake-inngest/faults", self._clear_faults),
            ("POST", "/fake-inngest/clock", self._move_clock),
            ("POST", "/fake-inngest/store-rate", self._set_store_rate),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, path, _guarded(handler))

    async def _hello(self, _: web.Request) -> web.Response:
        return web.Response(text="This is a fake Inngest: GET /fake-inngest/events shows events.\n")

    async def _show_events(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", str(_DEFAULT_LIMIT))
        if not (limit.isascii() and limit.isdigit()):
            return _json({"error": "limit is a whole number"}, 400)
        kept = self._ledger.kept(event_id=request.query.get("id"), limit=int(limit))
        return _json([_view(arrival, self._ledger) for arrival in kept])

    async def _forget_events(self, _: web.Request) -> web.Response:
        self._ledger.clear()
        self._store.clear()
        return web.Response(status=204)

    async def _show_stats(self, _: web.Request) -> web.Response:
        stats = msgspec.structs.asdict(self._ledger.stats)
        store = {
            "stored": self._store.event_count,
            "storedIds": self._store.id_count,
            "queued": self._storing.queued,
            "lost": self._storing.lost,
            "runs": self._store.runs.count,
            "mostRunsOfAnId": self._store.runs.most_of_an_id,
        }
        return _json(stats | store)

    async def _show_faults(self, _: web.Request) -> web.Response:
        return _json(self._script.left)

    async def _add_fault(self, request: web.Request) -> web.Response:
        fault = msgspec.json.decode(await request.read(), type=Fault)
        self._script.add(fault.action, times=fault.times, match=fault.match)
        return _json(self._script.left, 201)

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self._script.clear()
        return web.Response(status=204)

    async def _move_clock(self, request: web.Request) -> web.Response:
        self._clock.move(msgspec.json.decode(await request.read(), type=ClockMove).seconds)
        return _json({"now": self._clock.now_ms})

    async def _set_store_rate(self, request: web.Request) -> web.Response:
        self._storing.rate = msgspec.json.decode(await request.read(), type=StoreRate).rate
        return _json({"rate": self._storing.rate})


def _guarded(handler: _Handler) -> _Handler:
    async def handle(request: web.Request) -> web.Response:
        if not _is_loopback(request.host) or _is_cross_site(request):
            return _json({"error": "Only a client of this machine may ask this."}, 403)
        try:
            return await handler(request)
        except ValueError as error:
            return _json({"error": str(error)}, 400)

    return handle


def _is_loopback(host: str) -> bool:
    """True when a Host header names this machine.

    >>> [_is_loopback(one) for one in ("localhost:8288", "127.0.0.1", "[::1]:1", "evil.test")]
    [True, True, True, False]
    """
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_cross_site(request: web.Request) -> bool:
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        return True
    return request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")


def _view(arrival: Arrival, ledger: Ledger) -> dict[str, object]:
    return {
        "id": arrival.id,
        "serverId": arrival.server_id,
        "name": arrival.name,
        "ts": arrival.ts,
        "receivedAt": arrival.received_at_ms,
        "times": ledger.times(arrival.id),
        "event": msgspec.Raw(arrival.event.decode(errors="replace").encode()),
    }


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )
