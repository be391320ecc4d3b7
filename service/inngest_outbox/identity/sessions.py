"""Finds the user of a request, whichever sign-in made the session.

Sessions are looked for in a fixed order: the service's own cookie, the cookies of each reader
(next-auth 4, Auth.js 5), a bearer token of theirs, then the readers that ask another server. So a
cookie always counts before a token, cached or not. Only authentic cookie sessions are cached, each
no longer than it is valid without a renewal, and none beyond a change of the session revisions.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import aiohttp_session
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from aiohttp_session import AbstractStorage, Session

from inngest_outbox.identity.cookie_session import CookieSessionStorage
from inngest_outbox.identity.cookies import cookie_header, parse_cookies
from inngest_outbox.identity.session_revision import SessionRevisions
from inngest_outbox.identity.user import FoundUser, User

_MAX_REMEMBERED = 10_000
_MAX_CHARS = 16 * 1024 * 1024


class Reader(Protocol):
    """Reads sessions that another application made."""

    def from_cookies(self, cookies: Mapping[str, str]) -> FoundUser | None:
        """The user of the session among `cookies`, None without an authentic one."""
        ...

    def from_bearer(self, token: str) -> FoundUser | None:
        """The user of a bearer token, None without an authentic one."""
        ...

    def clear(self, cookies: Mapping[str, str], response: web.StreamResponse) -> None:
        """Remove the session cookies among `cookies`."""
        ...


class RemoteReader(Protocol):
    """Finds users by asking another server, and caches the answers itself."""

    async def find(self, request: web.Request) -> User | None:
        """The user of a request, None without an authentic session of this kind.

        Raises ProviderUnavailableError while the other side can't be asked.
        """
        ...


class SessionStorage(AbstractStorage):
    """aiohttp-session storage for every kind of session, in their order.

    A changed session is saved as the service's own cookie. An emptied one removes every cookie.
    """

    def __init__(
        self,
        own: CookieSessionStorage,
        readers: Sequence[Reader],
        remote: Iterable[RemoteReader],
        revisions: SessionRevisions,
    ) -> None:
        super().__init__()
        self._own = own
        self._readers = tuple(readers)
        self._remote = tuple(remote)
        self._revisions = revisions

    async def load_session(self, request: web.Request) -> Session:
        """The first authentic session, an empty one when there is none."""
        session = await self._own.load_session(request)
        if not session.empty:
            signed_in = session["session"]
            if signed_in.revision == await self._revisions.current(signed_in.user.owner):
                return session
        here = self._from_cookies(request) or self._from_bearer(request)
        return here or await self._from_elsewhere(request) or await self.new_session()

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        """Save the own cookie, or remove all of them when the session is empty."""
        await self._own.save_session(request, response, session)
        if session.empty:
            cookies = parse_cookies(cookie_header(request))
            for reader in self._readers:
                reader.clear(cookies, response)

    def _from_cookies(self, request: web.Request) -> Session | None:
        cookies = parse_cookies(cookie_header(request))
        for reader in self._readers:
            if found := reader.from_cookies(cookies):
                return _session(found.user, found.good_until)
        return None

    def _from_bearer(self, request: web.Request) -> Session | None:
        token = bearer_token(request)
        if not token:
            return None
        for reader in self._readers:
            if found := reader.from_bearer(token):
                return _session(found.user)
        return None

    async def _from_elsewhere(self, request: web.Request) -> Session | None:
        for reader in self._remote:
            if user := await reader.find(request):
                return _session(user)
        return None


class Sessions:
    """Finds users, signs them in and out. Needs its `middleware()` installed."""

    def __init__(
        self,
        own: CookieSessionStorage,
        readers: Sequence[Reader] = (),
        *,
        remote: Iterable[RemoteReader] = (),
        revisions: SessionRevisions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._own = own
        self._storage = SessionStorage(own, readers, remote, revisions)
        self._revisions = revisions
        self._clock = clock
        self._remembered = RememberedUsers()
        self._generation = revisions.generation

    def middleware(self) -> Middleware:
        """The aiohttp-session middleware for every kind of session; install it once."""
        return aiohttp_session.session_middleware(self._storage)

    async def user(self, request: web.Request) -> User | None:
        """The signed-in user, None without an authentic session that has not expired.

        Raises OutboxUnavailableError when the store can't say whether the session was ended, and
        ProviderUnavailableError when another side that knows the session can't be asked.
        """
        generation = self._revisions.generation
        if generation != self._generation:
            self._generation = generation
            self._remembered.clear()
        cookies = cookie_header(request)
        found = self._remembered.get(cookies, self._clock())
        if found is not None:
            return found.user
        session = await aiohttp_session.get_session(request)
        user: User | None = session.get("user")
        if user is None:
            return None
        good_until: float | None = session.get("good_until")
        if good_until and generation == self._revisions.generation:
            self._remembered.put(cookies, FoundUser(user, good_until))
        return user

    async def sign_in(self, request: web.Request, user: User) -> None:
        """Start a new session for `user` and drop an earlier one.

        Raises InvalidFieldError when the user does not fit into a cookie, OutboxUnavailableError.
        """
        signed_in = self._own.begin(user, await self._revisions.latest(user.owner))
        session = await aiohttp_session.new_session(request)
        session["session"] = signed_in
        session["user"] = user

    async def sign_out(self, request: web.Request, *, everywhere: bool = False) -> None:
        """End the session: the answer removes every session cookie of the request.

        `everywhere` ends all of the service's own sessions of this user. Raises
        OutboxUnavailableError.
        """
        session = await aiohttp_session.get_session(request)
        user: User | None = session.get("user")
        if everywhere and user is not None:
            await self._revisions.end_all(user.owner)
        session.invalidate()


def bearer_token(request: web.Request) -> str:
    """The request's bearer token, empty without one."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _session(user: User, good_until: float | None = None) -> Session:
    held = {"user": user, "good_until": good_until}
    return Session("front end", data={"session": held}, new=False)


class RememberedUsers:
    """At most 10,000 users, and 16 Mi characters of headers."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, FoundUser] = OrderedDict()
        self._chars = 0

    def __len__(self) -> int:
        return len(self._found)

    def get(self, cookies: str, now: float) -> FoundUser | None:
        """The user of `cookies`, None when unknown or no longer valid at `now`."""
        found = self._found.get(cookies)
        if found is None:
            return None
        if now >= found.good_until:
            self._forget(cookies)
            return None
        self._found.move_to_end(cookies)
        return found

    def put(self, cookies: str, found: FoundUser) -> None:
        """Remember the user of `cookies`."""
        self._forget(cookies)
        self._found[cookies] = found
        self._chars += len(cookies)
        while len(self._found) > _MAX_REMEMBERED or self._chars > _MAX_CHARS:
            self._forget(next(iter(self._found)))

    def clear(self) -> None:
        """Forget all users."""
        self._found.clear()
        self._chars = 0

    def _forget(self, cookies: str) -> None:
        if self._found.pop(cookies, None) is not None:
            self._chars -= len(cookies)
