"""Who may pass: the session of a request, and that no other site caused it."""

from __future__ import annotations

from aiohttp import web

from service.errors import CrossSiteRequestError, SessionRequiredError
from service.identity.sessions import Sessions
from service.identity.user import User
from service.web.cross_site import CrossSite

SIGNED_IN_REFUSALS = (SessionRequiredError, CrossSiteRequestError)


class Gate:
    """Gives the signed-in user of a request."""

    def __init__(self, sessions: Sessions, cross_site: CrossSite) -> None:
        self._sessions = sessions
        self._cross_site = cross_site

    async def user(self, request: web.Request) -> User:
        """The user. Raises SessionRequiredError, then CrossSiteRequestError."""
        user = await self._sessions.user(request)
        if user is None:
            raise SessionRequiredError
        self._cross_site.check(request)
        return user
