"""Sessions that a front end keeps in its database."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request

from service.errors import ProviderUnavailableError
from service.identity.front_end.front_end_sessions import FrontEndSessions

COOKIE = "next-auth.session-token"
TOKEN = "0b0f5a1e-8d6c-4f5f-9a52-2f5d3c1a7b90"
ADA = {"user": {"name": "Ada", "email": "ada@example.com"}, "expires": "2100-01-01T00:00:00Z"}


class FrontEnd:
    """Answers `session` to the session cookie, what next-auth answers without one to any other."""

    def __init__(self) -> None:
        self.session: object = ADA
        self.nobody: object = {}
        self.status = 200
        self.cookies: list[str] = []
        self.at_once = self.most_at_once = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.cookies.append(request.headers.get("Cookie", ""))
        self.most_at_once = max(self.most_at_once, self.at_once + 1)
        self.at_once += 1
        await asyncio.sleep(0)
        self.at_once -= 1
        known = request.cookies.get(COOKIE) == TOKEN
        return web.json_response(self.session if known else self.nobody, status=self.status)


@pytest.fixture
def front_end():
    return FrontEnd()


@pytest.fixture
async def sessions(front_end, aiohttp_server):
    app = web.Application()
    app.router.add_get("/api/auth/session", front_end.answer)
    server = await aiohttp_server(app)
    async with ClientSession() as http:
        yield FrontEndSessions(str(server.make_url("")), http, issuers={COOKIE: "next-auth"})


def request(cookies: str) -> web.Request:
    return make_mocked_request("GET", "/", headers={"Cookie": cookies})


async def test_the_front_end_says_whose_session_it_is(front_end, sessions):
    user = await sessions.find(request(f"theme=dark; {COOKIE}={TOKEN}"))
    assert (user.owner, user.name) == ("next-auth ada@example.com", "Ada")
    assert front_end.cookies == [f"{COOKIE}={TOKEN}"]


async def test_an_id_of_the_session_callback_counts_before_the_email(front_end, sessions):
    front_end.session = {"user": {"id": 7, "email": "ada@example.com"}}
    assert (await sessions.find(request(f"{COOKIE}={TOKEN}"))).owner == "next-auth 7"


async def test_an_answer_is_cached(front_end, sessions):
    for _ in range(3):
        assert await sessions.find(request(f"{COOKIE}={TOKEN}")) is not None
    assert len(front_end.cookies) == 1


@pytest.mark.parametrize("nobody", [{}, None, {"user": None}, {"user": {"name": "Ada"}}])
async def test_without_a_user_there_is_no_session(front_end, sessions, nobody):
    front_end.nobody = nobody
    assert await sessions.find(request(f"{COOKIE}={'x' * 36}")) is None


@pytest.mark.parametrize("cookies", ["", f"{COOKIE}=", f"{COOKIE}=a.b.c.d.e", f"{COOKIE}=short"])
async def test_a_cookie_that_is_no_such_session_is_not_asked_about(front_end, sessions, cookies):
    assert await sessions.find(request(cookies)) is None
    assert front_end.cookies == []


async def test_a_front_end_that_fails_is_no_sign_out(front_end, sessions):
    front_end.status = 500
    with pytest.raises(ProviderUnavailableError):
        await sessions.find(request(f"{COOKIE}={TOKEN}"))


async def test_a_front_end_that_failed_is_not_asked_again_at_once(front_end, sessions):
    front_end.status = 500
    for _ in range(5):
        with pytest.raises(ProviderUnavailableError):
            await sessions.find(request(f"{COOKIE}={TOKEN}"))
    assert len(front_end.cookies) == 5  # it answered: only silence is remembered


async def test_cookies_that_nobody_knows_are_asked_about_a_few_at_a_time(front_end, sessions):
    unknown = (sessions.find(request(f"{COOKIE}={number:036}")) for number in range(50))
    assert await asyncio.gather(*unknown) == [None] * 50
    assert len(front_end.cookies) == 50
    assert front_end.most_at_once <= 8
