"""Finds the event that a request names, if its user may see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from service.errors import NotFoundError
from service.identity.user import User
from service.outbox.model import Row
from service.outbox.row_lookup import RowLookup

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
        row = await self._lookup.find(request.match_info["id"], user.owner)
        is_operator = self._is_operator(user)
        if row is None or not (is_operator or self._owns(user, row)):
            raise NotFoundError("There is no such event.")
        if not self._owns(user, row):
            _log.info("operator_action", action="show_event", actor=user.id, event_id=row.id)
        return row, user, is_operator

    async def own(self, request: web.Request) -> tuple[Row, User]:
        """The user's own event in the path, and the user. Raises NotFoundError for any other."""
        user = await self.user_of(request)
        row = await self._lookup.find(request.match_info["id"], user.owner)
        if row is None or not self._owns(user, row):
            raise NotFoundError("There is no such event.")
        return row, user

    def _owns(self, user: User, row: Row) -> bool:
        return row.owner == user.owner
