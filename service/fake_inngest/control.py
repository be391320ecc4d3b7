"""The fake Inngest's own endpoints: see what arrived, script faults.

They are not Inngest's, and speak JSON. There is no sign-in: it is for
development.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from service.fake_inngest.faults import Fault, FaultScript
from service.fake_inngest.ledger import Arrival, Ledger

_DEFAULT_LIMIT = 100


def add_control_routes(app: web.Application, ledger: Ledger, script: FaultScript) -> None:
    """Add the endpoints under `/fake-inngest/`, and a line at `/` that says what this is."""

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="This is a fake Inngest: GET /fake-inngest/events shows events.\n")

    async def show_events(request: web.Request) -> web.Response:
        limit = request.query.get("limit", str(_DEFAULT_LIMIT))
        if not (limit.isascii() and limit.isdigit()):
            return _json({"error": "limit is a whole number"}, 400)
        kept = ledger.kept(event_id=request.query.get("id"), limit=int(limit))
        return _json([_view(arrival, ledger) for arrival in kept])

    async def forget_events(_: web.Request) -> web.Response:
        ledger.clear()
        return web.Response(status=204)

    async def show_stats(_: web.Request) -> web.Response:
        return _json(ledger.stats)

    async def show_faults(_: web.Request) -> web.Response:
        return _json(script.left)

    async def add_fault(request: web.Request) -> web.Response:
        try:
            fault = msgspec.json.decode(await request.read(), type=Fault)
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        script.add(fault.action, times=fault.times, match=fault.match)
        return _json(script.left, 201)

    async def clear_faults(_: web.Request) -> web.Response:
        script.clear()
        return web.Response(status=204)

    app.router.add_get("/", hello)
    app.router.add_get("/fake-inngest/events", show_events)
    app.router.add_delete("/fake-inngest/events", forget_events)
    app.router.add_get("/fake-inngest/stats", show_stats)
    app.router.add_get("/fake-inngest/faults", show_faults)
    app.router.add_post("/fake-inngest/faults", add_fault)
    app.router.add_delete("/fake-inngest/faults", clear_faults)


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
