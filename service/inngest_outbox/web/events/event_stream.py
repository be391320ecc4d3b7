"""GET /api/events/{id}/stream: an event as server-sent events, until nothing more happens to it."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import hdrs, web

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.web.events.events import EVENT_ERRORS, EventAccess
from inngest_outbox.web.events.followed_event import FollowedEvent, Snapshot
from inngest_outbox.web.events.follower import EventFollower
from inngest_outbox.web.intake.event_examples import EVENT_ID
from inngest_outbox.web.openapi.endpoint import Access, Answer, Endpoint, Parameter
from inngest_outbox.web.server.answers import EVENT_STREAM, event_source

_LAST_EVENT_ID = "Last-Event-ID"
_HEADERS = {
    hdrs.CACHE_CONTROL: "no-store, no-transform",
    "X-Accel-Buffering": "no",
}
_SCHEMA = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "Changes with the event."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/EventView"},
        },
    },
}
_BEAT = b":\n\n"
_RETRY_MS = 1000


class EventStream:
    """The handler of an event's stream."""

    def __init__(self, access: EventAccess, follower: EventFollower) -> None:
        self._access = access
        self._follower = follower
        self._policy = follower.policy

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.get("/api/events/{id}/stream", self.stream, allow_head=False)]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        last = Parameter(_LAST_EVENT_ID, "Sent by a browser that connects again.", place="header")
        return [
            Endpoint(
                method="GET",
                path="/api/events/{id}/stream",
                name="streamEvent",
                tag="events",
                access=Access.OWNER,
                summary="What becomes of an event, as server-sent events",
                parameters=[EVENT_ID, last],
                answers={
                    200: Answer(
                        "Each `data` is an EventView; the stream ends with the final one",
                        _SCHEMA,
                        content_type=EVENT_STREAM,
                    ),
                    204: Answer("Nothing more happens to the event after `Last-Event-ID`"),
                },
                errors=EVENT_ERRORS,
            )
        ]

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The event as it is, then each change. An EventSource stops at the answer 204."""
        row, user, _ = await self._access.visible(request)
        if not self._follower.has_room(user.owner):
            raise OutboxUnavailableError("Too many streams are open. Try again shortly.")
        followed = self._follower.begin(row, user.owner)
        del row  # 10,000 who wait would hold one each
        try:
            await self._follower.ask_soon(followed)
            known = request.headers.get(_LAST_EVENT_ID)
            if followed.snapshot and followed.snapshot.final and followed.snapshot.tag == known:
                return web.Response(status=204)
            response = event_source(request, _HEADERS)
            await response.prepare(request)
            response.headers.clear()  # sent; 10,000 streams would hold a copy each
            with contextlib.suppress(ConnectionError):
                await self._send_changes(request, response, followed)
            return response
        finally:
            self._follower.end(followed, user.owner)

    async def _send_changes(
        self, request: web.Request, response: web.StreamResponse, followed: FollowedEvent
    ) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + self._policy.stream_seconds
        sent = ""
        while (snapshot := followed.snapshot) is not None and not self._follower.closed:
            if snapshot.tag != sent:
                await response.write(_event(snapshot))
                sent = snapshot.tag
                continue
            if snapshot.final or clock() > until:
                return
            beat_at = clock() + self._policy.beat_seconds
            await followed.change(beat_at, request)
            if request.transport is None:
                return
            if clock() >= beat_at:
                await response.write(_BEAT)


def _event(snapshot: Snapshot) -> bytes:
    head = f"retry: {_RETRY_MS}\nid: {snapshot.tag}\ndata: "
    return head.encode() + snapshot.body + b"\n\n"
