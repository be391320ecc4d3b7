"""A fake of Inngest's Event API: `POST /e/{key}`, as Inngest v1.43 answers it.

The invariant: an id is answered if and only if its event is in the ledger and in the store or its
queue, unless a scripted fault says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from aiohttp import web

from inngest_outbox.dev.fake_inngest.event_store import Storing
from inngest_outbox.dev.fake_inngest.events import Reading, count_events, read_events
from inngest_outbox.dev.fake_inngest.fault_effects import (
    apply_fault,
    empty_ids,
    reset,
    respond,
    stores_events,
)
from inngest_outbox.dev.fake_inngest.faults import Action, FaultScript, kind_of
from inngest_outbox.dev.fake_inngest.ledger import Ledger, Request
from inngest_outbox.dev.fake_inngest.ulids import request_ulids
from inngest_outbox.outbox.inngest_id import SEED_HEADER

_encode = msgspec.json.Encoder().encode


class Reply(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The body of an answer; `ids` is absent where the request was refused before its events."""

    ids: list[str] = []
    status: int = 0
    error: str | None = None


class EventApi:
    """The handler of `POST /e/{key}`.

    `keys` are the event keys that are accepted, None accepts any. With `sink`, arrays are only
    counted and answered: nothing is checked or kept and no fault is met (for benchmarks).
    """

    def __init__(
        self,
        ledger: Ledger,
        storing: Storing,
        faults: FaultScript,
        *,
        keys: Collection[str] | None,
        sink: bool,
    ) -> None:
        self.ledger = ledger
        self.faults = faults
        self.keys = keys
        self._storing = storing
        self._sink = sink

    def add_routes(self, app: web.Application) -> None:
        """Add `POST /e/{key}`."""
        app.router.add_post("/e/{key}", self._sink_events if self._sink else self._take_events)

    async def _take_events(self, request: web.Request) -> web.StreamResponse:
        if (unread := self.faults.take_unread()) is not None:
            self._record(request, 0, Reading([]), 0, unread.action)
            return reset(request)
        body = await request.read()
        reading = read_events(body)
        fault = self.faults.take(reading, len(body))
        taken = apply_fault(reading, fault) if fault else reading
        stores = fault is None or stores_events(fault.action)
        reply = self._accept(request, taken) if stores else Reply([], 500)
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
            return _response(Reply([""], 400, str(error)))
        ids = self._ulids(request, count)
        self.ledger.count_only(count)
        return _response(Reply(ids or [""], 200))

    def _accept(self, request: web.Request, reading: Reading) -> Reply:
        if self.keys is not None and request.match_info["key"] not in self.keys:
            return Reply([], 401, "Event key not found")
        ids = self._ulids(request, len(reading.events))
        self._storing.accept(self.ledger.accept(reading.events, ids))
        status = 400 if reading.error else 200
        return Reply(ids or [""], status, reading.error)

    def _ulids(self, request: web.Request, count: int) -> list[str]:
        return request_ulids(request.headers.get(SEED_HEADER), count, self.ledger.now_ms())

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
    # The API calls its JSON text/plain, and ends it with a line.
    body = _encode(reply) + b"\n"
    return web.Response(status=reply.status, body=body, content_type="text/plain", charset="utf-8")
