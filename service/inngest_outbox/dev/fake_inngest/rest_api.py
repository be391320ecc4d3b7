"""The fake Inngest's REST API as a self-hosted Inngest v1.43 answers it: the guard and the events.

Below `/v1` an error is HTTP 200 with its status in the body, and answers about one event or run are
repeated for a while, by their whole URL, as text/plain. Lists are newest ULID first.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from inngest_outbox.dev.fake_inngest.event_store import EventStore
from inngest_outbox.dev.fake_inngest.ledger import Arrival, MovableClock

MAX_PAGE = 51
_DEFAULT_PAGE = 20
_HOUR_MS = 3_600_000
_EVENT_SECONDS = 5.0
_MAX_CACHED = 10_000
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_PREFIX = re.compile(r"^signkey-\w+-")
_NO_ID = "00000000-0000-0000-0000-000000000000"

_encode = msgspec.json.encode


class Refused(Exception):  # noqa: N818  (an answer, not a fault)
    """An answer that is an error, with its HTTP status."""

    def __init__(self, body: object, http_status: int) -> None:
        super().__init__(body)
        self.body = _encode(body)
        self.http_status = http_status


def refused(error: str, status: int) -> Refused:
    """An error below `/v1`."""
    return Refused({"error": error, "data": None, "status": status}, 200)


class SigningKey:
    """A key that guards the REST API: hex, alone or as `signkey-<environment>-<hex>`.

    Raises ValueError for one that is not hex.

    >>> SigningKey("signkey-test-00ff").accepts("Bearer 00ff")
    True
    """

    def __init__(self, key: str) -> None:
        bare = _PREFIX.sub("", key)
        digest = hashlib.sha256(bytes.fromhex(bare)).hexdigest()
        self._accepted = (bare, digest)

    def accepts(self, authorization: str | None) -> bool:
        """True when this Authorization header has the key, as it is or hashed."""
        scheme, _, token = (authorization or "").partition(" ")
        bare = _PREFIX.sub("", token.strip()).encode()
        known = [hmac.compare_digest(bare, one.encode()) for one in self._accepted]
        return scheme.lower() == "bearer" and any(known)


class Guard:
    """Wraps handlers: counts, checks the key, waits `seconds`, repeats answers.

    `key` None asks for none, as a dev server.
    """

    def __init__(self, clock: MovableClock, key: SigningKey | None) -> None:
        self.requests = 0
        self.seconds = 0.0
        self._clock = clock
        self._key = key
        self._answers: dict[tuple[str, str], tuple[float, bytes]] = {}

    def wrap(
        self, show: Callable[[web.Request], bytes], keep_seconds: float = 0.0
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """A handler that answers with what `show` gives, repeated for `keep_seconds`."""

        async def handle(request: web.Request) -> web.Response:
            self.requests += 1
            await asyncio.sleep(self.seconds)
            if self._key and not self._key.accepts(request.headers.get("Authorization")):
                return web.Response(status=401, text="Authentication failed\n")
            if body := self._kept(request):
                return web.Response(body=body, content_type="text/plain", charset="utf-8")
            try:
                body = show(request)
            except Refused as error:
                return _json(error.body, error.http_status)
            if keep_seconds:
                self._keep(request, body, keep_seconds)
            return _json(body, 200)

        return handle

    def _kept(self, request: web.Request) -> bytes | None:
        until, body = self._answers.get(_question(request), (0.0, b""))
        return body if until > self._clock() else None

    def _keep(self, request: web.Request, body: bytes, seconds: float) -> None:
        if len(self._answers) >= _MAX_CACHED:
            self._answers.clear()
        self._answers[_question(request)] = (self._clock() + seconds, body)


class RestApi:
    """`GET /v1/events` and one event."""

    def __init__(self, store: EventStore, clock: MovableClock, guard: Guard) -> None:
        self._store = store
        self._clock = clock
        self._guard = guard

    def add_routes(self, app: web.Application) -> None:
        """Add the endpoints."""
        app.router.add_get("/v1/events", self._guard.wrap(self._list_events))
        app.router.add_get("/v1/events/{id}", self._guard.wrap(self._show_event, _EVENT_SECONDS))

    def _list_events(self, request: web.Request) -> bytes:
        query = request.query
        cursor = query.get("cursor") or None
        if cursor and not _ULID.fullmatch(cursor):
            raise refused("Invalid cursor query parameter", 400)
        now_ms = self._clock.now_ms
        limit = int(query["limit"]) if query.get("limit", "").isdigit() else _DEFAULT_PAGE
        found = self._store.page(
            limit=min(limit or _DEFAULT_PAGE, MAX_PAGE),
            cursor=cursor,
            name=query.get("name") or None,
            after_ms=_milliseconds(query.get("received_after"), now_ms - _HOUR_MS),
            before_ms=_milliseconds(query.get("received_before"), now_ms),
        )
        return answered([_event(one) for one in found], now_ms)

    def _show_event(self, request: web.Request) -> bytes:
        found = self._store.find(event_ulid(request))
        if found is None:
            raise refused("Event not found", 404)
        return answered(_event(found), self._clock.now_ms)


def event_ulid(request: web.Request) -> str:
    """The ULID in the path. Raises Refused."""
    internal_id = request.match_info["id"]
    if not is_ulid(internal_id):
        raise refused(f"Invalid event ID: {internal_id}", 400)
    return internal_id


def is_ulid(text: str) -> bool:
    """True for a ULID."""
    return _ULID.fullmatch(text) is not None


def answered(data: object, now_ms: int) -> bytes:
    """The body of an answer below `/v1`."""
    return _encode({"data": data, "metadata": {"fetched_at": moment(now_ms)}})


def moment(milliseconds: int) -> str:
    """A time as the API writes it."""
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _event(arrival: Arrival) -> dict[str, object]:
    text = arrival.event.decode(errors="replace")
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return {
        "internal_id": arrival.server_id,
        "account_id": _NO_ID,
        "environment_id": _NO_ID,
        "source": "",
        "source_id": None,
        "received_at": moment(arrival.received_at_ms),
        "id": arrival.id,
        "name": arrival.name,
        "data": fields.get("data"),
        "ts": arrival.ts,
        **{name: fields[name] for name in ("user", "v") if name in fields},
    }


def _milliseconds(text: str | None, default: int) -> int:
    if not text:
        return default
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        raise refused("Invalid received_after query parameter", 400) from None


def _question(request: web.Request) -> tuple[str, str]:
    return request.path_qs, request.headers.get("Authorization", "")


def _json(body: bytes, status: int) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")
