"""Who is asking: the user of a request, whichever sign-in made the session.

Sessions are looked for in a fixed order: the service's own cookie, then each reader (next-auth 4,
Auth.js 5). Only authentic sessions are remembered, each no longer than it is good without being
looked at again; so a remembered answer never outlives its session.
"""

from __future__ import annotations

import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import aiohttp_session
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from aiohttp_session import AbstractStorage, Session

from service.identity.cookie_session import CookieSessionStorage
from service.identity.user import User

_MAX_REMEMBERED = 10_000
_MAX_REMEMBERED_CHARS = 16 * 1024 * 1024


class Reader(Protocol):
    """Reads sessions that another application's sign-in made."""

    def load(self, request: web.Request) -> Session | None:
        """The request's session with `user` and `good_until`, None without an authentic one."""
        ...

    def clear(self, request: web.Request, response: web.StreamResponse) -> None:
        """Remove the cookies that the request brought."""
        ...


class SessionStorage(AbstractStorage):
    """aiohttp-session storage over all kinds of session, in their order.

    A changed session is saved as an own cookie; an emptied one removes every kind of cookie.
    """

    def __init__(self, own: CookieSessionStorage, readers: Sequence[Reader] = ()) -> None:
        super().__init__(cookie_name=own.cookie_name)
        self._own = own
        self._readers = tuple(readers)

    async def load_session(self, request: web.Request) -> Session:
        """The first authentic session; a new, empty one when there is none."""
        session = await self._own.load_session(request)
        if not session.empty:
            return session
        for reader in self._readers:
            found = reader.load(request)
            if found is not None:
                return found
        return session

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        """Save the own cookie, or remove all of them when the session is empty."""
        await self._own.save_session(request, response, session)
        if session.empty:
            for reader in self._readers:
                reader.clear(request, response)


class Sessions:
    """The users of requests, signing in and signing out.

    `middleware()` must be installed. Users are remembered by their raw Cookie header: at most
    `max_remembered` of them, and 16 Mi characters of headers.
    """

    def __init__(
        self,
        own: CookieSessionStorage,
        readers: Sequence[Reader] = (),
        *,
        clock: Callable[[], float] = time.time,
        max_remembered: int = _MAX_REMEMBERED,
    ) -> None:
        self._own = own
        self._storage = SessionStorage(own, readers)
        self._clock = clock
        self._max_remembered = max_remembered
        self._remembered: OrderedDict[str, tuple[User, float]] = OrderedDict()
        self._remembered_chars = 0

    def middleware(self) -> Middleware:
        """The aiohttp-session middleware over all kinds of session, to be installed once."""
        # aiohttp-session names its request keys by plain strings; aiohttp warns of it.
        warnings.filterwarnings("ignore", category=web.NotAppKeyWarning, module=r"aiohttp_session$")
        return aiohttp_session.session_middleware(self._storage)

    async def user(self, request: web.Request) -> User | None:
        """The signed-in user, None without an authentic session that has not expired."""
        cookie = request.headers.get(hdrs.COOKIE, "")
        found = self._remembered.get(cookie)
        if found is not None:
            if self._clock() < found[1]:
                self._remembered.move_to_end(cookie)
                return found[0]
            self._forget(cookie)
        session = await aiohttp_session.get_session(request)
        user: User | None = session.get("user")
        if user is not None and cookie and hdrs.AUTHORIZATION not in request.headers:
            self._remember(cookie, user, session.get("good_until", 0.0))
        return user

    async def sign_in(self, request: web.Request, user: User) -> None:
        """Start a new session for `user`; nothing of an earlier session is kept.

        Raises InvalidFieldError when the user does not fit into a cookie.
        """
        self._own.seal(user)
        session = await aiohttp_session.new_session(request)
        session["user"] = user

    async def sign_out(self, request: web.Request) -> None:
        """End the session: the answer removes every session cookie that the request brought."""
        session = await aiohttp_session.get_session(request)
        session.invalidate()

    def _remember(self, cookie: str, user: User, good_until: float) -> None:
        self._forget(cookie)
        self._remembered[cookie] = (user, good_until)
        self._remembered_chars += len(cookie)
        while (
            len(self._remembered) > self._max_remembered
            or self._remembered_chars > _MAX_REMEMBERED_CHARS
        ):
            self._forget(next(iter(self._remembered)))

    def _forget(self, cookie: str) -> None:
        if self._remembered.pop(cookie, None) is not None:
            self._remembered_chars -= len(cookie)
