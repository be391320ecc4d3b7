"""GET /api/events/{id}: what became of an event that the user may see, at once or as it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

import structlog
from aiohttp import hdrs, web

from inngest_outbox.errors import (
    InvalidFieldError,
    NotFoundError,
    OutboxUnavailableError,
)
from inngest_outbox.identity.user import User
from inngest_outbox.inngest.runs import stacks_of
from inngest_outbox.observe.printable import masked
from inngest_outbox.outbox.model import Row
from inngest_outbox.outbox.row_lookup import RowLookup
from inngest_outbox.web.events.event_view import EventView
from inngest_outbox.web.events.followed_event import FollowedEvent, Snapshot, with_stacks
from inngest_outbox.web.events.follower import EventFollower
from inngest_outbox.web.intake.event_examples import EVENT_EXAMPLE, EVENT_ID
from inngest_outbox.web.openapi.endpoint import (
    JSON,
    Access,
    Answer,
    Endpoint,
    Parameter,
    ResponseHeader,
)
from inngest_outbox.web.signin.auth import READ_REFUSALS

EVENT_ERRORS = (*READ_REFUSALS, NotFoundError, OutboxUnavailableError)
_ETAG = ResponseHeader("ETag", "Changes with the event.")
_KNOWN = Parameter("If-None-Match", "The ETag that is known already.", place="header")
_ANY = "*"
_log = structlog.get_logger(__name__)


class EventAccess:
    """Finds events for their owners and for operators.

    `user_of` returns the user of a request, or raises SessionRequiredError or
    CrossSiteRequestError.
    """

    def __init__(
        self,
        lookup: RowLookup,
        user_of: Callable[[web.Request], Awaitable[User]],
        is_operator: Callable[[User], bool],
    ) -> None:
        self._lookup = lookup
        self.user_of = user_of
        self._is_operator = is_operator

    async def visible(self, request: web.Request) -> tuple[Row, User, bool]:
        """The event in the path, the user who asks, and true for an operator.

        Raises NotFoundError, also for another user's event.
        """
        user = await self.user_of(request)
        row = await self._find(request, user)
        is_operator = self._is_operator(user)
        if row is None or not (is_operator or row.owner == user.owner):
            raise NotFoundError("There is no such event.")
        if row.owner != user.owner:
            _log.info(
                "operator_action", action="show_event", actor=masked(user.id), event_id=row.id
            )
        return row, user, is_operator

    async def own(self, request: web.Request, user: User) -> Row:
        """The event in the path. Raises NotFoundError, also for one that is not of `user`."""
        row = await self._find(request, user)
        if row is None or row.owner != user.owner:
            raise NotFoundError("There is no such event.")
        return row

    async def _find(self, request: web.Request, user: User) -> Row | None:
        return await self._lookup.find(request.match_info["id"], user.owner)


class Events:
    """The handler of a single event."""

    def __init__(self, access: EventAccess, follower: EventFollower) -> None:
        self._access = access
        self._follower = follower
        self._max_wait_seconds = follower.policy.max_wait_seconds

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.get("/api/events/{id}", self.show)]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        seconds = {"type": "integer", "minimum": 0, "maximum": self._max_wait_seconds}
        wait = Parameter("wait", "Answer when the event changes, after so many seconds.", seconds)
        return [
            Endpoint(
                method="GET",
                path="/api/events/{id}",
                name="getEvent",
                tag="events",
                access=Access.OWNER,
                summary="What became of an event",
                parameters=[EVENT_ID, wait, _KNOWN],
                answers={
                    200: Answer("The event", EventView, EVENT_EXAMPLE, headers=[_ETAG]),
                    304: Answer("The event is still as it is known", headers=[_ETAG]),
                },
                errors=(*EVENT_ERRORS, InvalidFieldError),
            )
        ]

    async def show(self, request: web.Request) -> web.Response:
        """One event. With `wait`, the answer comes with the next change after `If-None-Match`."""
        seconds = whole_number(request, "wait", 0, self._max_wait_seconds)
        known = frozenset(tag.value for tag in request.if_none_match or ())
        row, user, is_operator = await self._access.visible(request)
        may_wait = self._follower.has_room(user.owner)
        followed = self._follower.begin(row, user.owner)
        del row  # 10,000 who wait would hold one each
        try:
            await self._follower.ask_soon(followed)
            if seconds and may_wait:
                await self._wait(request, followed, known, seconds)
            stacks = stacks_of(followed.told.values()) if is_operator else {}
            return _answer(followed.snapshot, known, stacks)
        finally:
            self._follower.end(followed, user.owner)

    async def _wait(
        self, request: web.Request, followed: FollowedEvent, known: Collection[str], seconds: int
    ) -> None:
        first = {followed.snapshot.tag} if followed.snapshot and not known else known
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        while _is_unchanged(followed, first) and not self._follower.closed and clock() < until:
            await followed.change(until, request)
            if request.transport is None:
                return


def whole_number(request: web.Request, name: str, least: int, most: int) -> int | None:
    """The number in the query, None without one. Raises InvalidFieldError outside of the bounds."""
    given = request.query.get(name)
    if given is None:
        return None
    is_number = given.isascii() and given.isdecimal() and len(given) <= len(str(most))
    if not is_number or not least <= int(given) <= most:
        raise InvalidFieldError(f"{name} is a whole number from {least} to {most}.")
    return int(given)


def _is_unchanged(followed: FollowedEvent, known: Collection[str]) -> bool:
    """True while there is nothing to tell. Runs that Inngest did not tell yet are no news."""
    snapshot = followed.snapshot
    if snapshot is None or snapshot.final:
        return False
    return _is_among(snapshot, known) or not followed.is_known


def _is_among(snapshot: Snapshot, known: Collection[str]) -> bool:
    """True for a known tag. Weak tags count too: a proxy that compresses makes tags weak."""
    return snapshot.tag in known or _ANY in known


def _answer(
    snapshot: Snapshot | None, known: Collection[str], stacks: Mapping[str, str]
) -> web.Response:
    if snapshot is None:
        raise NotFoundError("There is no such event.")
    headers = {hdrs.ETAG: f'"{snapshot.tag}"'}
    if _is_among(snapshot, known):
        return web.Response(status=304, headers=headers)
    body = with_stacks(snapshot.body, stacks) if stacks else snapshot.body
    return web.Response(body=body, content_type=JSON, headers=headers)
