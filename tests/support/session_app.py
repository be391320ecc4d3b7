"""A small application that signs in, signs out and says who asks, on a loopback socket."""

from __future__ import annotations

from http.cookies import SimpleCookie

from aiohttp import web

from service.identity.cookie_session import CookieSessionStorage
from service.identity.session_revision import SessionRevisions
from service.identity.sessions import Sessions
from service.identity.user import User
from tests.support.clock import Clock
from tests.support.memory_scopes import MemoryScopes

START = 1_800_000_000.0
ADA = User("dev", "u-1", "ada@example.com", "Ada", "org-1", email_verified=True)


class SessionApp:
    """`client` asks, `sessions` answers, `scopes` holds what was ended."""

    def __init__(self, clock: Clock, *secrets: str, secure: bool = False, **options) -> None:
        own = CookieSessionStorage(secrets or ("secret-one",), secure=secure, clock=clock)
        self.scopes = MemoryScopes()
        revisions = SessionRevisions(self.scopes)
        self.sessions = Sessions(own, revisions=revisions, clock=clock, **options)
        self.client = None

    async def start(self, aiohttp_client) -> SessionApp:
        app = web.Application(middlewares=[self.sessions.middleware()])
        app.router.add_get("/in", self._sign_in)
        app.router.add_get("/out", self._sign_out)
        app.router.add_get("/who", self._who)
        self.client = await aiohttp_client(app)
        return self

    async def get(self, path: str, cookie: str = ""):
        self.client.session.cookie_jar.clear()
        return await self.client.get(path, headers={"Cookie": cookie} if cookie else {})

    async def signed_in(self) -> str:
        return cookie_of(await self.get("/in"))

    async def who(self, cookie: str) -> tuple[str | None, list[str]]:
        """The user's id, and the cookies that the answer sets."""
        answer = await self.get("/who", cookie)
        assert answer.status == 200
        return (await answer.json())["id"], answer.headers.getall("Set-Cookie", [])

    async def _sign_in(self, request):
        await self.sessions.sign_in(request, ADA)
        return web.Response()

    async def _sign_out(self, request):
        await self.sessions.sign_out(request, everywhere="everywhere" in request.query)
        return web.Response()

    async def _who(self, request):
        user = await self.sessions.user(request)
        return web.json_response({"id": user and user.id})


def cookie_of(answer) -> str:
    """The Cookie header that a browser sends after this answer."""
    return as_cookie(answer.headers["Set-Cookie"])


def as_cookie(set_cookie: str) -> str:
    morsel = SimpleCookie(set_cookie)
    return "; ".join(f"{name}={found.value}" for name, found in morsel.items())
