"""One's own events: GET /api/events lists them, DELETE /api/events/{id} takes one back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from inngest_outbox.console.operations.search import Search
from inngest_outbox.errors import (
    CrossSiteRequestError,
    EventLeftError,
    InvalidFieldError,
    OutboxUnavailableError,
)
from inngest_outbox.identity.user import User
from inngest_outbox.outbox.model import Filter, Named, State
from inngest_outbox.outbox.ports import Repairs
from inngest_outbox.web.events.event_view import EventView, event_view
from inngest_outbox.web.events.events import EVENT_ERRORS, EventAccess, whole_number
from inngest_outbox.web.intake.event_examples import EVENT_EXAMPLE, EVENT_ID
from inngest_outbox.web.openapi.endpoint import Access, Answer, Endpoint, Parameter
from inngest_outbox.web.server.answers import json_answer
from inngest_outbox.web.signin.auth import READ_REFUSALS

MAX_LIMIT = 100
_LIMIT = 50
_MAX_MS = 2**53 - 1
_WHOLE = {"type": "integer", "minimum": 0, "maximum": _MAX_MS}
_QUERY = (
    Parameter("state", "Only events in this state.", {"enum": [str(one) for one in State]}),
    Parameter("name", "Only events of this name.", {"type": "string"}),
    Parameter("since", "Only events accepted at this time or later: ms since 1970.", _WHOLE),
    Parameter(
        "limit",
        "How many at most.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": _LIMIT},
    ),
    Parameter("cursor", "The `nextCursor` of the page before.", {"type": "string"}),
)


class EventPage(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A page of events, newest first. The list does not ask Inngest: `run` is null.

    A request searches for a bounded time: a page that is not the last one may be short or empty.
    """

    events: Sequence[EventView]
    next_cursor: Annotated[str | None, Meta(description="For the next page; null on the last one.")]


class OwnEvents:
    """The handlers of a user's own events."""

    def __init__(
        self,
        access: EventAccess,
        rows: Search,
        withdrawals: Repairs,
        *,
        runs_follow: bool,
    ) -> None:
        self._access = access
        self._rows = rows
        self._withdrawals = withdrawals
        self._runs_follow = runs_follow

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get("/api/events", self.list_own),
            web.delete("/api/events/{id}", self.take_back),
        ]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        page = {"events": [{**EVENT_EXAMPLE, "run": None}], "nextCursor": "42"}
        return [
            Endpoint(
                method="GET",
                path="/api/events",
                name="listEvents",
                tag="events",
                access=Access.OWNER,
                summary="One's own events, newest first",
                parameters=_QUERY,
                answers={200: Answer("A page of events", EventPage, page)},
                errors=(*READ_REFUSALS, InvalidFieldError, OutboxUnavailableError),
            ),
            Endpoint(
                method="DELETE",
                path="/api/events/{id}",
                name="takeBackEvent",
                tag="events",
                access=Access.OWNER,
                summary="Take back an event that was never sent to Inngest",
                parameters=[EVENT_ID],
                answers={204: Answer("The event is gone and will not be sent")},
                errors=(*EVENT_ERRORS, CrossSiteRequestError, EventLeftError),
            ),
        ]

    async def list_own(self, request: web.Request) -> web.Response:
        """A page of the user's own events."""
        user = await self._access.user_of(request)
        found = await self._rows.find(_filter(request, user))
        views = [event_view(row, runs_follow=self._runs_follow) for row in found.rows]
        cursor = None if found.next_seq is None else str(found.next_seq)
        return json_answer(EventPage(views, cursor))

    async def take_back(self, request: web.Request) -> web.Response:
        """Remove an event that was never sent. Raises EventLeftError for any other."""
        user = await self._access.user_of(request)
        row = await self._access.own(request, user)
        wanted = Named((row.id,), owner=user.owner, never_sent=True)
        if not await self._withdrawals.discard(wanted, actor=user.actor):
            await self._access.own(request, user)  # another request may have taken it back
            raise EventLeftError
        return web.Response(status=204)


def _filter(request: web.Request, user: User) -> Filter:
    """The filter of the query."""
    query = request.query
    return Filter(
        owner=user.owner,
        state=_state(query.get("state")),
        name=query.get("name"),
        since_ms=whole_number(request, "since", 0, _MAX_MS),
        before_seq=whole_number(request, "cursor", 1, _MAX_MS),
        limit=whole_number(request, "limit", 1, MAX_LIMIT) or _LIMIT,
    )


def _state(given: str | None) -> State | None:
    try:
        return State(given) if given is not None else None
    except ValueError:
        raise InvalidFieldError(f"state is one of {', '.join(State)}.") from None
