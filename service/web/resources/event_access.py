"""Finds the event that a request names, if its user may see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from service.errors import NotFoundError
from service.identity.user import User
from service.outbox.model import Row
from service.outbox.ports import Intake

_log = structlog.get_logger(__name__)


class EventAccess:
    """Finds events for their owners and for operators.

    `user_of` returns the user of a request, or raises SessionRequiredError or
    CrossSiteRequestError.
    """

    def __init__(
        self,
        intake: Intake,
        user_of: Callable[[web.Request], Awaitable[User]],
        is_operator: Callable[[User], bool],
    ) -> None:
        self._intake = intake
        self.user_of = user_of
        self._is_operator = is_operator

    async def visible(self, request: web.Request) -> Row:
        """The event in the path. Raises NotFoundError, also for another user's event."""
        user = await self.user_of(request)
        row = await self._find(request)
        if row is None or not (self._owns(user, row) or self._is_operator(user)):
            raise NotFoundError("There is no such event.")
        if not self._owns(user, row):
            _log.info("operator_action", action="show_event", actor=user.id, event_id=row.id)
        return row

    async def own(self, request: web.Request) -> Row:
        """The user's own event in the path. Raises NotFoundError for any other."""
        user = await self.user_of(request)
        row = await self._find(request)
        if row is None or not self._owns(user, row):
            raise NotFoundError("There is no such event.")
        return row

    async def _find(self, request: web.Request) -> Row | None:
        return await self._intake.find(request.match_info["id"])

    def _owns(self, user: User, row: Row) -> bool:
        return row.owner == user.owner
