"""Sign-ins at a provider, over HTTP."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession, web

from inngest_outbox.identity.cookie_session import CookieSessionStorage
from inngest_outbox.identity.oidc import OidcSignIn
from inngest_outbox.identity.oidc_provider import OidcProvider
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.sign_in_attempt import AttemptCookie
from inngest_outbox.web.server.cross_site import CrossSite
from inngest_outbox.web.server.proxies import Proxies
from inngest_outbox.web.signin.oidc import OidcResource
from inngest_outbox.web.signin.sign_in import SignIn
from tests.support.forged_provider import CLIENT_ID, CLIENT_SECRET, ForgedProvider
from tests.support.memory_scopes import revisions
from tests.support.oidc_browser import Browser, refusals


@pytest.fixture
async def provider():
    async with ForgedProvider() as provider:
        yield provider


@pytest.fixture
async def start(aiohttp_server):
    """Starts the service's sign-in at an issuer."""
    opened = []

    async def start(issuer: str, secret: str | None = CLIENT_SECRET):
        http = ClientSession()
        opened.append(http)
        oidc = OidcSignIn(OidcProvider(issuer, CLIENT_ID, secret, http), user_issuer=issuer)
        sessions = Sessions(CookieSessionStorage(["secret"], secure=False), revisions=revisions())
        cookie = AttemptCookie(["secret"], secure=False)
        app = web.Application(middlewares=[sessions.middleware(), refusals])
        app.add_routes(
            OidcResource(oidc, sessions, cookie, secure=False, proxies=Proxies()).routes()
        )
        app.add_routes(SignIn(sessions, CrossSite([], secure=False, proxies=Proxies())).routes())
        return await aiohttp_server(app)

    yield start
    for http in opened:
        await http.close()


@pytest.fixture
async def browser(start, provider):
    browser = Browser(await start(provider.issuer))
    yield browser
    await browser.http.close()


@pytest.fixture
async def other_browser(browser):
    other = Browser(browser._service)
    yield other
    await other.http.close()
