"""Sessions that the front end keeps in its database (`strategy: "database"`).

Their cookie is a random text without content. So the front end is asked whose session it is, at its
`/api/auth/session`, with this cookie alone. A user that it names is cached for half a minute: a
sign-out at the front end takes that long to count here. A front end that did not answer is not
asked for 5 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp import hdrs, web

from inngest_outbox.errors import ProviderUnavailableError
from inngest_outbox.identity.cookies import cookie_header, parse_cookies
from inngest_outbox.identity.remote_answer import decode, fetch
from inngest_outbox.identity.sessions import RememberedUsers
from inngest_outbox.identity.user import FoundUser, User, user_from_claims

_SESSION_PATH = "/api/auth/session"
_CACHED_SECONDS = 30.0
_MAX_ASKING = 8
_WAIT_SECONDS = 5.0
_SILENT_SECONDS = 5.0
# A cookie with dots is an encrypted token, which is read without asking.
_OPAQUE = re.compile(r"[A-Za-z0-9_-]{16,512}")


class _Answer(msgspec.Struct, frozen=True, gc=False):
    user: dict[str, Any] | None = None


class FrontEndSessions:
    """Asks the front end at `url` about its session cookie.

    `issuers` has the issuer of the users' ids for each name that the cookie may have. A user's id
    is what the front end's `session` callback puts into `user.id`, else the e-mail address.
    """

    def __init__(
        self,
        url: str,
        http: aiohttp.ClientSession,
        *,
        issuers: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url.rstrip("/") + _SESSION_PATH
        self._http = http
        self._issuers = dict(issuers)
        self._clock = clock
        self._found = RememberedUsers()
        self._asking = asyncio.Semaphore(_MAX_ASKING)
        self._silent_until = float("-inf")

    async def find(self, request: web.Request) -> User | None:
        """The user of the request's session cookie, None without a session of the front end.

        Raises ProviderUnavailableError while the front end can't be asked.
        """
        cookies = parse_cookies(cookie_header(request))
        for name, issuer in self._issuers.items():
            if _OPAQUE.fullmatch(cookies.get(name, "")):
                return await self._user(f"{name}={cookies[name]}", issuer)
        return None

    async def _user(self, cookie: str, issuer: str) -> User | None:
        cached = self._found.get(cookie, self._clock())
        if cached is not None:
            return cached.user
        claims = await self._ask(cookie) or {}
        user = user_from_claims(claims, issuer=issuer, id_claims=("id", "email"))
        if user:
            self._found.put(cookie, FoundUser(user, self._clock() + _CACHED_SECONDS))
        return user

    async def _ask(self, cookie: str) -> dict[str, Any] | None:
        headers: dict[str, str] = {hdrs.COOKIE: cookie, hdrs.ACCEPT: "application/json"}
        async with self._in_turn():
            body = await fetch(self._http, self._url, headers)
        if body is None:
            raise ProviderUnavailableError("The front end does not say who you are.")
        # Without a session next-auth 4 says {} and Auth.js 5 says null.
        return None if body.strip() == b"null" else decode(body, _Answer).user

    @contextlib.asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        """One of a few questions at a time, since anybody can send unknown cookies."""
        if self._clock() < self._silent_until:
            raise ProviderUnavailableError
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._asking.acquire()
        except TimeoutError as error:
            raise ProviderUnavailableError from error
        try:
            yield
        except ProviderUnavailableError:
            self._silent_until = self._clock() + _SILENT_SECONDS
            raise
        finally:
            self._asking.release()
