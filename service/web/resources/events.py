"""GET /api/events/{id}: what became of an event, for its owner or an operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import structlog
from aiohttp import web

from service.errors import NotFoundError, OutboxUnavailableError, SessionRequiredError
from service.identity.user import User
from service.outbox.model import State
from service.outbox.ports import Intake
from service.web.openapi import Operation

_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)


class EventView(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An event as its owner sees it. Times are milliseconds since 1970, null until they happen.

    `reason` is why it is dead: a code, then Inngest's words.
    """

    id: str
    name: str
    state: State
    attempts: int
    accepted_at: int
    delivered_at: int | None
    reason: str | None


class Events:
    """The handler under /api/events. `user_of` raises SessionRequiredError without a session."""

    def __init__(
        self,
        intake: Intake,
        user_of: Callable[[web.Request], Awaitable[User]],
        is_operator: Callable[[User], bool],
    ) -> None:
        self._intake = intake
        self._user_of = user_of
        self._is_operator = is_operator

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.get("/api/events/{id}", self.show)]

    def operations(self) -> list[Operation]:
        """What the API's description says."""
        refusals = (SessionRequiredError, NotFoundError, OutboxUnavailableError)
        summary = "What became of an event"
        return [Operation("GET", "/api/events/{id}", summary, answer=EventView, refusals=refusals)]

    async def show(self, request: web.Request) -> web.Response:
        """One event; 404 also when it is somebody else's."""
        user = await self._user_of(request)
        row = await self._intake.find(request.match_info["id"])
        if row is None or (row.user_id != user.id and not self._is_operator(user)):
            raise NotFoundError("There is no such event.")
        if row.user_id != user.id:
            _log.info("operator_action", action="show_event", actor=user.id, event_id=row.id)
        delivered = row.settled_at_ms if row.state is State.DELIVERED else None
        view = EventView(
            row.id,
            row.name,
            row.state,
            row.attempts,
            row.accepted_at_ms,
            delivered,
            f"{row.reason}: {row.detail}" if row.reason and row.detail else row.reason,
        )
        return web.Response(body=_encode(view), content_type="application/json")
