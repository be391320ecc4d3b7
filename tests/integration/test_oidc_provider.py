"""Signing in at the real `oidc-provider` package, with a browser that fills in its forms."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from aiohttp import ClientSession, CookieJar, web
from aiohttp.test_utils import TestServer
from yarl import URL

from inngest_outbox.identity.cookie_session import CookieSessionStorage
from inngest_outbox.identity.oidc import OidcSignIn
from inngest_outbox.identity.oidc_provider import OidcProvider
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.sign_in_attempt import AttemptCookie
from inngest_outbox.web.server.cross_site import CrossSite
from inngest_outbox.web.server.proxies import Proxies
from inngest_outbox.web.signin.oidc import OidcResource
from inngest_outbox.web.signin.sign_in import SignIn
from tests.support.free_port import free_port
from tests.support.memory_scopes import revisions
from tests.support.oidc_browser import refusals

pytestmark = pytest.mark.slow

SECRET = "the-clients-secret"
ADDRESS = re.compile(r'action="([^"]+)"')
PROMPT = re.compile(r'name="prompt" value="(\w+)"')


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def issuer(node_packages, port):
    base = {
        "redirect_uris": [f"http://127.0.0.1:{port}/auth/callback"],
        "response_types": ["code"],
        "grant_types": ["authorization_code"],
    }
    clients = [
        {**base, "client_id": "with-secret", "client_secret": SECRET},
        {**base, "client_id": "public", "token_endpoint_auth_method": "none"},
    ]
    command = [shutil.which("node"), "oidc_provider.mjs", json.dumps(clients)]
    with subprocess.Popen(
        command, cwd=node_packages, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as provider:
        yield provider.stdout.readline().decode().strip()
        provider.kill()


class Browser:
    """A browser that signs in as ada wherever it is asked to."""

    def __init__(self, service: URL) -> None:
        self.service = service
        self.http = ClientSession(cookie_jar=CookieJar(unsafe=True))

    async def get(self, url: URL | str):
        target = url if isinstance(url, URL) else self.service.join(URL(url))
        return await self.http.get(target, allow_redirects=False)

    async def begin(self, path: str = "/auth/login") -> URL:
        return URL((await self.get(path)).headers["Location"])

    async def fill_in(self, url: URL) -> URL:
        """Go on until the provider sends the browser back; returns where to, not yet visited."""
        while url.origin() != self.service.origin():
            answer = await self.get(url)
            page = await answer.text()
            if answer.status == 200:
                fields = {"prompt": PROMPT.search(page)[1], "login": "ada", "password": "any"}
                answer = await self.http.post(
                    ADDRESS.search(page)[1], data=fields, allow_redirects=False
                )
            url = url.join(URL(answer.headers["Location"]))
        return url

    async def user(self):
        return (await (await self.get("/auth/session")).json())["user"]


@pytest.fixture
async def open_browser(issuer, port):
    """Starts the service as one client of the provider, and browsers in front of it."""
    closing = []

    async def open_browser(client_id: str = "with-secret", secret: str | None = SECRET):
        http = ClientSession()
        signing_in = OidcSignIn(OidcProvider(issuer, client_id, secret, http), user_issuer=issuer)
        sessions = Sessions(CookieSessionStorage(["secret"], secure=False), revisions=revisions())
        cookie = AttemptCookie(["secret"], secure=False)
        oidc = OidcResource(signing_in, sessions, cookie, secure=False, proxies=Proxies())
        app = web.Application(middlewares=[sessions.middleware(), refusals])
        app.add_routes(oidc.routes())
        app.add_routes(SignIn(sessions, CrossSite([], secure=False, proxies=Proxies())).routes())
        server = TestServer(app, port=port)
        await server.start_server()
        browser = Browser(server.make_url("/"))
        closing.extend([http, server, browser.http])
        return browser

    yield open_browser
    for found in reversed(closing):
        await found.__aexit__(None, None, None)


async def refused(browser, answer) -> None:
    assert await answer.json() == {"code": "sign_in_failed"}
    assert await browser.user() is None


@pytest.mark.parametrize(("client_id", "secret"), [("with-secret", SECRET), ("public", None)])
async def test_a_user_signs_in_and_comes_back(open_browser, client_id, secret):
    browser = await open_browser(client_id, secret)
    back = await browser.fill_in(await browser.begin("/auth/login?returnTo=/documents"))
    answer = await browser.get(back)
    assert (answer.status, answer.headers["Location"]) == (302, "/documents")
    assert await browser.user() == {
        "id": "ada",
        "email": "ada@example.com",
        "name": "Ada",
        "organizationId": None,
        "emailVerified": True,
    }
    await browser.http.post(browser.service / "auth/logout")
    assert await browser.user() is None


async def test_another_nonce_or_challenge_than_the_browser_began_with_is_refused(open_browser):
    browser = await open_browser()
    for changed in ({"nonce": "wrong"}, {"code_challenge": "A" * 43}):
        asked = (await browser.begin()).update_query(changed)
        await refused(browser, await browser.get(await browser.fill_in(asked)))


async def test_a_sign_in_that_the_user_gives_up_is_refused(open_browser):
    browser = await open_browser()
    form = await browser.http.get(await browser.begin())
    abort = await browser.get(form.url / "abort")
    back = await browser.fill_in(URL(abort.headers["Location"]))
    assert back.query["error"] == "access_denied"
    await refused(browser, await browser.get(back))


async def test_a_new_key_of_the_provider_is_found(open_browser, issuer):
    browser = await open_browser()
    assert (await browser.get(await browser.fill_in(await browser.begin()))).status == 302
    await browser.http.get(f"{issuer}/rotate")
    await browser.http.post(browser.service / "auth/logout")
    back = await browser.fill_in(await browser.begin())
    assert (await browser.get(back)).status == 302
    assert (await browser.user())["id"] == "ada"
