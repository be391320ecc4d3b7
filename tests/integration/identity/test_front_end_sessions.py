"""Sessions that a front end keeps in its database."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request

from service.errors import ProviderUnavailableError
from service.identity.front_end_sessions import FrontEndSessions

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

    async def answer(self, request: web.Request) -> web.Response:
        self.cookies.append(request.headers.get("Cookie", ""))
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


@pytest.mark.parametrize("nobody", [{}, None, {"user": None}, {"user": {"name": "Ada"}}])
async def test_without_a_user_there_is_no_session(front_end, sessions, nobody):
    front_end.nobody = nobody
    assert await sessions.find(request(f"{COOKIE}={'x' * 36}")) is None


async def test_a_front_end_that_fails_is_no_sign_out(front_end, sessions):
    front_end.status = 500
    with pytest.raises(ProviderUnavailableError):
        await sessions.find(request(f"{COOKIE}={TOKEN}"))
