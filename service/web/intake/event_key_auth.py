"""Finds the machine of a request by its event key, or else the signed-in user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from service.errors import EventKeyRequiredError, NotFoundError, RateLimitedError
from service.event_types.senders import Senders
from service.identity.event_keys import EventKeys
from service.identity.user import User
from service.web.server.rate_limit import RateLimit
from service.web.signin.auth import Authenticator

MACHINE_REFUSALS = (NotFoundError, EventKeyRequiredError, RateLimitedError)
_BEARER = "bearer"


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
        machine = self.by_key(_bearer_token(request))
        if machine is None:
            raise EventKeyRequiredError
        return machine

    def sender(self, senders: Senders) -> Callable[[web.Request], Awaitable[User]]:
        """What gives the sender of a request that only `senders` may make."""
        if not senders.machines:
            return self._authenticator.user
        return self.owner if senders.people else self._machine

    async def _machine(self, request: web.Request) -> User:
        return self.machine(request)

    async def owner(self, request: web.Request) -> User:
        """The machine or else the user. Raises RateLimitedError, and what `Authenticator` raises.

        A page of another site does not know a key, so a key needs no check of the origin.
        """
        token = _bearer_token(request)
        machine = self.by_key(token) if token and self._keys else None
        return machine or await self._authenticator.user(request)


def _bearer_token(request: web.Request) -> str:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() if scheme.lower() == _BEARER else ""
