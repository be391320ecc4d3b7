"""The fake Inngest's REST API: `GET /v1/events`, one event, its runs.

Answers as Inngest v1.43 does: lists are newest first by internal id and at most 50 long; an event
that is not there is HTTP 200 with the status 404 in its body.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from service.dev.fake_inngest.clock import MovableClock
from service.dev.fake_inngest.event_store import EventStore, Run
from service.dev.fake_inngest.ledger import Arrival
from service.dev.fake_inngest.signing_key import SigningKey

MAX_PAGE = 50
_DEFAULT_PAGE = 20
_MAX_CACHED = 10_000
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_NO_ID = "00000000-0000-4000-a000-000000000000"


class RestApi:
    """The handlers over `store`. `key` None asks for none, as a dev server.

    `cache_seconds` is how long the answer for a single event is repeated, found or not.
    """

    def __init__(
        self, store: EventStore, clock: MovableClock, key: SigningKey | None, cache_seconds: float
    ) -> None:
        self.requests = 0
        self._store = store
        self._clock = clock
        self._key = key
        self._cache_seconds = cache_seconds
        self._cache: dict[str, tuple[float, bytes]] = {}

    def add_routes(self, app: web.Application) -> None:
        """Add the endpoints under `/v1/`."""
        app.router.add_get("/v1/events", self._guarded(self._list_events))
        app.router.add_get("/v1/events/{id}", self._guarded(self._show_event))
        app.router.add_get("/v1/events/{id}/runs", self._guarded(self._show_runs))

    def _guarded(
        self, show: Callable[[web.Request], web.Response]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            self.requests += 1
            if self._key and not self._key.accepts(request.headers.get("Authorization")):
                return _failed("Unauthorized", 401)
            return show(request)

        return handle

    def _list_events(self, request: web.Request) -> web.Response:
        query = request.query
        cursor = query.get("cursor") or None
        if cursor and not _ULID.fullmatch(cursor):
            return _failed("Invalid cursor query parameter", 400)
        try:
            after_ms = _milliseconds(query.get("received_after"), 0)
            before_ms = _milliseconds(query.get("received_before"), 1 << 62)
        except ValueError:
            return _failed("Invalid received_after query parameter", 400)
        limit = int(query["limit"]) if query.get("limit", "").isdigit() else _DEFAULT_PAGE
        found = self._store.page(
            limit=min(max(limit, 1), MAX_PAGE),
            cursor=cursor,
            name=query.get("name") or None,
            after_ms=after_ms,
            before_ms=before_ms,
        )
        return self._answer([_event(one) for one in found])

    def _show_event(self, request: web.Request) -> web.Response:
        internal_id = request.match_info["id"]
        if not _ULID.fullmatch(internal_id):
            return _failed(f"Invalid event ID: {internal_id}", 400)
        until, body = self._cache.get(internal_id, (0.0, b""))
        if until <= self._clock():
            body = self._find(internal_id)
            self._remember(internal_id, body)
        return _json(body)

    def _show_runs(self, request: web.Request) -> web.Response:
        internal_id = request.match_info["id"]
        if not _ULID.fullmatch(internal_id):
            return _failed(f"Invalid event ID: {internal_id}", 400)
        return self._answer([_run(one) for one in self._store.runs_of(internal_id)])

    def _remember(self, internal_id: str, body: bytes) -> None:
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[internal_id] = (self._clock() + self._cache_seconds, body)

    def _find(self, internal_id: str) -> bytes:
        found = self._store.find(internal_id)
        if found is None:
            return _error_body("Event not found", 404)
        return self._body(_event(found))

    def _answer(self, data: object) -> web.Response:
        return _json(self._body(data))

    def _body(self, data: object) -> bytes:
        fetched = _moment(self._clock.now_ms)
        return msgspec.json.encode(
            {"data": data, "metadata": {"fetched_at": fetched, "cached_until": None}}
        )


def _event(arrival: Arrival) -> dict[str, object]:
    text = arrival.event.decode(errors="replace")
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return {
        "internal_id": arrival.server_id,
        "account_id": _NO_ID,
        "environment_id": _NO_ID,
        "source": "",
        "source_id": None,
        "received_at": _moment(arrival.received_at_ms),
        "id": arrival.id,
        "name": arrival.name,
        "data": fields.get("data", {}),
        "user": fields.get("user", {}),
        "ts": arrival.ts,
        "v": fields.get("v", ""),
    }


def _run(run: Run) -> dict[str, object]:
    started = _moment(run.started_at_ms)
    return {
        "run_id": run.run_id,
        "run_started_at": started,
        "function_id": _NO_ID,
        "function_version": 1,
        "environment_id": _NO_ID,
        "event_id": run.internal_id,
        "status": "Completed",
        "ended_at": started,
        "output": None,
    }


def _milliseconds(text: str | None, default: int) -> int:
    if not text:
        return default
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def _moment(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _failed(error: str, status: int) -> web.Response:
    return _json(_error_body(error, status), status)


def _error_body(error: str, status: int) -> bytes:
    return msgspec.json.encode({"error": error, "data": None, "status": status})


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")
