"""Every kind of sign-in, asked of the running service over HTTP, in development and production."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import pytest_asyncio

from service.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import Process, environment, running
from tests.support.forged_provider import CLIENT_ID, CLIENT_SECRET, ForgedProvider
from tests.support.front_end import SECRET
from tests.support.plain_browser import Browser, arrived

pytestmark = pytest.mark.asyncio(loop_scope="module")

VECTORS = json.loads(
    (Path(__file__).parents[1] / "support" / "nextauth-vectors.json").read_text("utf-8")
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def production(
    tmp_path_factory: pytest.TempPathFactory, inngest: FakeInngest, provider: ForgedProvider
) -> AsyncIterator[Process]:
    path = tmp_path_factory.mktemp("production") / "outbox.db"
    settings = environment(
        f"sqlite:///{path}",
        inngest.url,
        APP_ENV="production",
        OIDC_ISSUER=provider.issuer,
        OIDC_CLIENT_ID=CLIENT_ID,
        OIDC_CLIENT_SECRET=CLIENT_SECRET,
    )
    async with running("serve", environment=settings) as process:
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def production_browser(production: Process) -> AsyncIterator[Browser]:
    browser = Browser(production.url)
    yield browser
    await browser.http.close()


async def test_a_developer_posts_and_signs_out(browser: Browser, inngest: FakeInngest) -> None:
    await browser.sign_in("ada", name="Ada")
    status, body = await browser.post()
    assert status == 200
    assert (await arrived(inngest, body))["user"] == {
        "id": "ada",
        "email": "ada@example.com",
        "name": "Ada",
    }
    assert await browser.ask("POST", "/auth/logout") == (200, {"user": None})
    status, body = await browser.post()
    assert (status, body["code"]) == (401, "session_required")


@pytest.mark.parametrize("version", ["v4", "v5"])
async def test_a_front_ends_cookie_signs_in_whole_and_chunked(
    browser: Browser, inngest: FakeInngest, version: str
) -> None:
    vectors = VECTORS[version]
    whole = next(one for one in vectors["vectors"] if one["secret"] == SECRET)
    assert vectors["chunked"]["secret"] == SECRET
    for cookies in ({whole["cookie_name"]: whole["token"]}, vectors["chunked"]["cookies"]):
        header = "; ".join(f"{name}={value}" for name, value in cookies.items())
        for _ in range(2):
            status, body = await browser.post(headers={"Cookie": header})
            assert status == 200
        assert (await arrived(inngest, body))["user"]["id"] == "user-123"


class TestProduction:
    async def test_without_their_secret_front_end_cookies_are_nothing(
        self, production_browser: Browser
    ) -> None:
        case = VECTORS["v4"]["vectors"][0]
        cookie = f"{case['cookie_name']}={case['token']}"
        status, answer = await production_browser.post(headers={"Cookie": cookie})
        assert (status, answer["code"]) == (401, "session_required")

    async def test_a_user_signs_in_at_the_provider_and_posts(
        self, production_browser: Browser, provider: ForgedProvider, inngest: FakeInngest
    ) -> None:
        browser = production_browser
        assert (await browser.ask("GET", "/auth/login?returnTo=/done"))[0] == 302
        attempt = browser.headers["Set-Cookie"]
        asked = dict(parse_qsl(urlsplit(browser.headers["Location"]).query))
        assert asked["redirect_uri"].startswith("https://127.0.0.1:")
        code = provider.authorize(asked)
        callback = f"/auth/callback?code={code}&state={asked['state']}&iss={provider.issuer}"
        status, body = await browser.ask("GET", callback)
        assert (status, body["code"]) == (400, "sign_in_failed")
        # This client keeps no Secure cookie of a plain http address, so it is brought by hand.
        headers = {"Cookie": attempt.partition(";")[0]}
        assert (await browser.ask("GET", callback, headers=headers))[0] == 302
        assert browser.headers["Location"] == "/done"
        set_cookies = browser.headers.getall("Set-Cookie")
        (session,) = [line for line in set_cookies if line.startswith("__Host-outbox_session=")]
        assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(session.split("; "))
        headers = {"Cookie": session.partition(";")[0]}
        status, accepted = await browser.post(headers=headers)
        assert status == 200
        assert (await arrived(inngest, accepted))["user"]["id"] == "ada"
        assert (await browser.ask("POST", "/auth/logout", headers=headers))[0] == 200
        assert "Secure" in browser.headers["Set-Cookie"]
        assert "Max-Age=0" in browser.headers["Set-Cookie"]
