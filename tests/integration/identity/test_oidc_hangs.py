"""A provider that hangs: nobody waits longer than the limit, and nothing piles up."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession, CookieJar, web
from yarl import URL

from inngest_outbox.identity.cookie_session import CookieSessionStorage
from inngest_outbox.identity.oidc import OidcSignIn
from inngest_outbox.identity.oidc_provider import OidcProvider
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.sign_in_attempt import AttemptCookie
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.web.server.middleware import error_middleware
from inngest_outbox.web.server.proxies import Proxies
from inngest_outbox.web.server.server import HttpServer
from inngest_outbox.web.signin.oidc import OidcResource
from tests.support.forged_provider import CLIENT_ID, CLIENT_SECRET
from tests.support.memory_scopes import revisions
from tests.support.storage import PATIENCE_SECONDS, eventually


@pytest.fixture
def at_work():
    """The paths of the requests that the service works on."""
    return []


@pytest.fixture
async def start(provider, at_work):
    """Starts the service, whose sign-ins are answered within `seconds`; gives its address."""
    running = []

    @web.middleware
    async def noted(request, handler):
        at_work.append(request.path)
        try:
            return await handler(request)
        finally:
            at_work.remove(request.path)

    async def start(seconds: float) -> str:
        http = ClientSession()
        oidc = OidcSignIn(
            OidcProvider(provider.issuer, CLIENT_ID, CLIENT_SECRET, http, timeout_seconds=3600),
            user_issuer=provider.issuer,
            answer_seconds=seconds,
        )
        sessions = Sessions(CookieSessionStorage(["secret"], secure=False), revisions=revisions())
        cookie = AttemptCookie(["secret"], secure=False)
        middlewares = [noted, error_middleware(NullRecorder()), sessions.middleware()]
        app = web.Application(middlewares=middlewares)
        app.add_routes(
            OidcResource(oidc, sessions, cookie, secure=False, proxies=Proxies()).routes()
        )
        server = HttpServer(app, NullRecorder())
        await server.setup()
        await web.TCPSite(server, "127.0.0.1", 0).start()
        running.append((server, http))
        return f"http://127.0.0.1:{server.addresses[0][1]}"

    yield start
    for server, http in running:
        await http.close()
        await server.cleanup()


async def test_sign_ins_at_a_provider_that_hangs_are_answered_together(start, provider):
    provider.hangs = True
    url = await start(2.0)
    async with ClientSession() as http, asyncio.timeout(PATIENCE_SECONDS):
        answers = await asyncio.gather(
            *(http.get(f"{url}/auth/login", allow_redirects=False) for _ in range(40))
        )
        assert [answer.status for answer in answers] == [503] * 40
        assert (await answers[0].json())["code"] == "provider_unavailable"
        assert answers[0].headers["Retry-After"] == "5"
    assert provider.requests == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize("step", ["login", "callback"])
async def test_a_client_that_leaves_is_forgotten(start, provider, at_work, step):
    url, query = await start(3600), {"code": "x", "iss": provider.issuer}
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as http:
        if step == "callback":
            async with http.get(f"{url}/auth/login", allow_redirects=False) as answer:
                query["state"] = URL(answer.headers["Location"]).query["state"]
        provider.hangs = True
        leaving = asyncio.create_task(http.get(f"{url}/auth/{step}", params=query))
        await eventually(lambda: provider.waiting == 1)
        assert at_work == [f"/auth/{step}"]
        leaving.cancel()
    await eventually(lambda: not at_work)
    if step == "callback":
        await eventually(lambda: provider.waiting == 0)
