"""Whose session a request has, what is remembered of it, and how it begins and ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from inngest_outbox.errors import OutboxUnavailableError, ProviderUnavailableError
from inngest_outbox.identity.cookie_session import CookieSessionStorage
from inngest_outbox.identity.session_revision import (
    SESSION_SCOPE,
    SessionRevisions,
    session_scope_id,
)
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.user import FoundUser, User
from tests.support.clock import Clock
from tests.support.memory_scopes import MemoryScopes

START = 1_800_000_000.0
ADA = User("dev", "ada")
NAME = "outbox_session"


class FrontEnd:
    """Reads the cookie `name`, or a bearer token that begins with it, and counts how often."""

    def __init__(self, name: str, good_until: float = START + 60) -> None:
        self.name = name
        self.good_until = good_until
        self.read = 0

    def from_cookies(self, cookies: Mapping[str, str]) -> FoundUser | None:
        self.read += 1
        return self._found(cookies.get(self.name))

    def from_bearer(self, token: str) -> FoundUser | None:
        self.read += 1
        return self._found(token if token.startswith(self.name) else None)

    def _found(self, user_id: str | None) -> FoundUser | None:
        return FoundUser(User(self.name, user_id), self.good_until) if user_id else None

    def clear(self, cookies: Mapping[str, str], response: web.StreamResponse) -> None:
        if self.name in cookies:
            response.del_cookie(self.name)


class Elsewhere:
    """Knows whom it is told."""

    def __init__(self, user: User | None = None) -> None:
        self.user = user
        self.is_silent = False
        self.asked = 0

    async def find(self, request: web.Request) -> User | None:
        self.asked += 1
        if self.is_silent:
            raise ProviderUnavailableError
        return self.user


class Service:
    """Sessions and their middleware, without a server."""

    def __init__(self, *readers: FrontEnd, **options: Any) -> None:
        self.clock = Clock(START)
        self.own = CookieSessionStorage(["secret"], secure=False, clock=self.clock)
        self.scopes = MemoryScopes()
        self.revisions = SessionRevisions(self.scopes)
        self.sessions = Sessions(
            self.own, readers, revisions=self.revisions, clock=self.clock, **options
        )
        self._middleware = self.sessions.middleware()

    async def call(self, work: Any, **headers: str) -> tuple[Any, web.StreamResponse]:
        """What `work(request)` says, and the answer."""
        said: list[Any] = []

        async def handler(request: web.Request) -> web.StreamResponse:
            said.append(await work(request))
            return web.Response()

        answer = await self._middleware(make_mocked_request("GET", "/", headers=headers), handler)
        return said[0], answer

    async def who(self, **headers: str) -> str | None:
        user, _ = await self.call(self.sessions.user, **headers)
        return user and user.owner

    async def sign_in(self, **headers: str) -> str:
        """The Cookie header of a new session of Ada's, who is the user of that request already."""

        async def sign_in(request: web.Request) -> User | None:
            await self.sessions.sign_in(request, ADA)
            return await self.sessions.user(request)

        user, answer = await self.call(sign_in, **headers)
        assert user == ADA
        return f"{NAME}={answer.cookies[NAME].value}"

    async def sign_out(self, *, headers: dict[str, str], **options: bool) -> set[str]:
        """The cookies that the answer removes."""
        _, answer = await self.call(
            lambda request: self.sessions.sign_out(request, **options), **headers
        )
        assert all(str(morsel["max-age"]) == "0" for morsel in answer.cookies.values())
        return set(answer.cookies)


async def test_cookies_count_before_tokens_and_those_before_what_others_say() -> None:
    elsewhere = [Elsewhere(), Elsewhere(User("else", "where")), Elsewhere(User("never", "asked"))]
    service = Service(FrontEnd("v4"), FrontEnd("v5"), remote=elsewhere)
    own = await service.sign_in()
    cookies = [own, "v4=c4", "v5=c5"]
    bearer = {"Authorization": "Bearer v5-token"}
    seen = [await service.who(Cookie="; ".join(cookies[at:]), **bearer) for at in range(4)]
    assert seen == ["dev ada", "v4 c4", "v5 c5", "v5 v5-token"]
    assert [one.asked for one in elsewhere] == [0, 0, 0]
    assert await service.who() == "else where"
    assert [one.asked for one in elsewhere] == [1, 1, 0]


@pytest.mark.parametrize(
    ("authorization", "user"),
    [
        ("Bearer v4-a", "v4 v4-a"),
        ("bEARER v4-a", "v4 v4-a"),
        ("Basic v4-a", None),
        ("v4-a", None),
        ("Bearer", None),
        ("Bearer other", None),
        ("Bearer  v4-a ", "v4 v4-a"),
        ("v4 v4-a", None),
    ],
)
async def test_a_token_follows_the_word_bearer(authorization: str, user: str | None) -> None:
    assert await Service(FrontEnd("v4")).who(Authorization=authorization) == user


async def test_a_request_of_nobody_is_looked_at_once() -> None:
    elsewhere = Elsewhere()
    service = Service(FrontEnd("v4"), remote=[elsewhere])

    async def twice(request: web.Request) -> list[User | None]:
        return [await service.sessions.user(request), await service.sessions.user(request)]

    found, answer = await service.call(twice, Cookie=f"{NAME}=forged; v4=")
    assert (found, answer.cookies) == ([None, None], {})
    assert elsewhere.asked == 1
    assert len(service.sessions._remembered) == 0


async def test_a_front_end_s_session_is_read_once_until_it_ends() -> None:
    front_end = FrontEnd("v4")
    service = Service(front_end)
    assert [await service.who(Cookie="v4=a") for _ in range(3)] == ["v4 a"] * 3
    assert front_end.read == 1
    service.clock.now = START + 60
    assert await service.who(Cookie="v4=a") == "v4 a"
    assert front_end.read == 2


async def test_a_token_and_what_others_say_are_not_remembered() -> None:
    front_end, elsewhere = FrontEnd("v4"), Elsewhere(User("else", "where"))
    service = Service(front_end, remote=[elsewhere])
    for _ in range(2):
        assert await service.who(Cookie="x=y", Authorization="Bearer v4-a") == "v4 v4-a"
        assert len(service.sessions._remembered) == 0
        assert await service.who(Cookie="x=y") == "else where"
    assert elsewhere.asked == 2
    assert len(service.sessions._remembered) == 0
    elsewhere.is_silent = True  # whoever can't be asked is no sign-out
    with pytest.raises(ProviderUnavailableError):
        await service.who()


async def test_an_own_session_is_remembered_for_a_day_and_then_renewed() -> None:
    service = Service()
    own = await service.sign_in()
    for _ in range(3):
        user, answer = await service.call(service.sessions.user, Cookie=own)
        assert (user, set(answer.cookies)) == (ADA, set())
    assert service.scopes.loads == 1
    assert len(service.sessions._remembered) == 1
    service.clock.now += 86_400
    user, answer = await service.call(service.sessions.user, Cookie=own)
    assert (user, set(answer.cookies)) == (ADA, {NAME})
    assert service.scopes.loads == 1


async def test_what_is_remembered_goes_when_any_session_was_ended() -> None:
    front_end = FrontEnd("v4")
    service = Service(front_end)
    own = await service.sign_in()
    for cookies in (own, "v4=a"):
        assert await service.who(Cookie=cookies)
    await service.revisions.end_all(ADA.owner)
    assert await service.who(Cookie=own) is None
    assert await service.who(Cookie="v4=a") == "v4 a"
    assert front_end.read == 3
    assert await service.who(Cookie="v4=a") == "v4 a"
    assert front_end.read == 3


@pytest.mark.parametrize("looks_meanwhile", [False, True])
async def test_a_session_that_is_ended_while_it_is_looked_at_is_not_remembered(
    *, looks_meanwhile: bool
) -> None:
    service = Service()
    own = await service.sign_in()

    class Ending(SessionRevisions):
        async def current(self, owner: str) -> str:
            found = await super().current(owner)
            await self.end_all(owner)
            if looks_meanwhile:
                assert await service.who() is None
            return found

    service.sessions._storage._revisions = Ending(service.scopes)
    assert await service.who(Cookie=own) == "dev ada"
    assert len(service.sessions._remembered) == 0


async def test_an_ended_session_gives_way_to_the_front_end_s_until_the_next_sign_in() -> None:
    service = Service(FrontEnd("v4"))
    own = await service.sign_in()
    await service.revisions.end_all(ADA.owner)
    assert await service.who(Cookie=f"{own}; v4=a") == "v4 a"
    stored = {(SESSION_SCOPE, session_scope_id(ADA.owner)): {"revision": "new"}}
    service.scopes.stored |= stored  # by a process that this one has not heard of yet
    own = await service.sign_in()
    await service.revisions.end_all("dev bob")
    assert await service.who(Cookie=f"{own}; v4=a") == "dev ada"


async def test_signing_in_ends_the_session_that_was_there() -> None:
    service = Service(FrontEnd("v4"))
    own = await service.sign_in(Cookie="v4=a")
    assert await service.who(Cookie=f"{own}; v4=a") == "dev ada"

    async def sign_in(request: web.Request) -> None:
        assert await service.sessions.user(request) == ADA
        await service.sessions.sign_in(request, User("dev", "bob"))

    _, answer = await service.call(sign_in, Cookie=f"{own}; x=y")
    assert await service.who(Cookie=f"{NAME}={answer.cookies[NAME].value}") == "dev bob"


async def test_signing_out_removes_every_cookie_of_the_request_and_ends_nothing_else() -> None:
    service = Service(FrontEnd("v4"), FrontEnd("v5"))
    own = await service.sign_in()
    assert await service.sign_out(headers={"Cookie": f"{own}; v5=b"}) == {NAME, "v5"}
    assert await service.sign_out(headers={}) == {NAME}
    assert await service.who(Cookie=own) == "dev ada"
    assert service.scopes.stored == {}


async def test_signing_out_everywhere_ends_the_user_s_own_sessions() -> None:
    service = Service(FrontEnd("v4"))
    here, there = await service.sign_in(), await service.sign_in()
    assert await service.sign_out(everywhere=True, headers={"Cookie": here}) == {NAME}
    assert [await service.who(Cookie=one) for one in (here, there)] == [None, None]
    assert list(service.scopes.stored) == [("session", session_scope_id("dev ada"))]
    await service.sign_out(everywhere=True, headers={})
    assert list(service.scopes.stored) == [("session", session_scope_id("dev ada"))]


async def test_while_the_store_is_away_no_session_begins_or_is_believed() -> None:
    service = Service()
    own = await service.sign_in()
    service.scopes.scope_revision += 1
    service.scopes.is_away = True
    for asking in (service.who(Cookie=own), service.sign_in()):
        with pytest.raises(OutboxUnavailableError):
            await asking
