"""Checks a request's session, its origin and its user's rate."""

from __future__ import annotations

from aiohttp import web

from service.errors import (
    CrossSiteRequestError,
    ProviderUnavailableError,
    RateLimitedError,
    SessionRequiredError,
)
from service.identity.sessions import Sessions
from service.identity.user import User
from service.web.server.cross_site import CrossSite
from service.web.server.rate_limit import RateLimit

READ_REFUSALS = (SessionRequiredError, ProviderUnavailableError, RateLimitedError)
SIGNED_IN_REFUSALS = (*READ_REFUSALS, CrossSiteRequestError)


class Authenticator:
    """Gives the signed-in user of a request."""

    def __init__(self, sessions: Sessions, cross_site: CrossSite, rate_limit: RateLimit) -> None:
        self._sessions = sessions
        self._cross_site = cross_site
        self._rate_limit = rate_limit

    async def user(self, request: web.Request) -> User:
        """The user.

        Raises SessionRequiredError or ProviderUnavailableError, then CrossSiteRequestError, then
        RateLimitedError.
        """
        user = await self._sessions.user(request)
        if user is None:
            raise SessionRequiredError
        self._cross_site.check(request)
        self._rate_limit.check(user.owner)
        return user
