"""Finds the sender of a request, a person or a machine, and limits its rate.

A person has a session, a machine an event key as its bearer token. A page of another site does not
know a key, so only a session needs a check of the origin.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from aiohttp import web

from inngest_outbox.errors import (
    CrossSiteRequestError,
    EventKeyRequiredError,
    NotFoundError,
    ProviderUnavailableError,
    RateLimitedError,
    SessionRequiredError,
)
from inngest_outbox.event_types.event_type import Senders
from inngest_outbox.identity.sessions import Sessions, bearer_token
from inngest_outbox.identity.user import EventKeys, User
from inngest_outbox.web.server.cross_site import CrossSite

READ_REFUSALS = (SessionRequiredError, ProviderUnavailableError, RateLimitedError)
SIGNED_IN_REFUSALS = (*READ_REFUSALS, CrossSiteRequestError)
MACHINE_REFUSALS = (NotFoundError, EventKeyRequiredError, RateLimitedError)
_MAX_REMEMBERED = 10_000


class RateLimit:
    """A token bucket for each owner with the tokens of one second, at least one.

    Each process counts by itself. With `per_second` None there is no limit.
    """

    def __init__(
        self, per_second: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def check(self, owner: str) -> None:
        """Count a request of `owner`. Raises RateLimitedError; a refused request is not counted."""
        if self._per_second is None:
            return
        now, each = self._clock(), 1 / self._per_second
        full_at = max(now, self._full_at.get(owner, now)) + each
        excess = full_at - now - max(1.0, each)
        if excess > 1e-9:  # noqa: PLR2004  (rounding)
            raise RateLimitedError(retry_after_seconds=math.ceil(excess))
        self._full_at[owner] = full_at
        self._full_at.move_to_end(owner)
        if len(self._full_at) > _MAX_REMEMBERED:
            self._full_at.popitem(last=False)


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


class EventKeyAuth:
    """Gives the owner of a request's events. Machines and people share one rate limit."""

    def __init__(
        self, keys: EventKeys, authenticator: Authenticator, rate_limit: RateLimit
    ) -> None:
        self._keys = keys
        self._authenticator = authenticator
        self._rate_limit = rate_limit

    def by_key(self, key: str) -> User | None:
        """The machine that `key` belongs to, None for an unknown key.

        Raises NotFoundError where there are no keys at all, and RateLimitedError.
        """
        if not self._keys:
            raise NotFoundError
        machine = self._keys.user(key)
        if machine:
            self._rate_limit.check(machine.owner)
        return machine

    def machine(self, request: web.Request) -> User:
        """The machine whose key is the request's bearer token.

        Raises EventKeyRequiredError, and what `by_key` raises.
        """
        machine = self.by_key(bearer_token(request))
        if machine is None:
            raise EventKeyRequiredError
        return machine

    def sender(self, senders: Senders) -> Callable[[web.Request], Awaitable[User]]:
        """The finder of senders for requests that only `senders` may make."""
        if not senders.machines:
            return self._authenticator.user
        return self.owner if senders.people else self._machine

    async def _machine(self, request: web.Request) -> User:
        return self.machine(request)

    async def owner(self, request: web.Request) -> User:
        """The machine or else the user. Raises what `by_key` and `Authenticator.user` raise."""
        token = bearer_token(request)
        machine = self.by_key(token) if token and self._keys else None
        return machine or await self._authenticator.user(request)
