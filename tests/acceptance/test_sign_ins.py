"""Who may do what, asked of the running service over HTTP: every kind of sign-in, every check."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest
import pytest_asyncio

from service.stand_in.event_api import EventApi
from tests.acceptance.fleet import Process, environment, running
from tests.forged_provider import CLIENT_ID, CLIENT_SECRET, ForgedProvider

pytestmark = pytest.mark.asyncio(loop_scope="module")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")

VECTORS = json.loads(
    (Path(__file__).parents[1] / "unit" / "nextauth-vectors.json").read_text("utf-8")
)
SECRET = "0123456789abcdef0123456789abcdef"  # the vectors'
FRONT = "https://front.example.com"
EVIL = {"Origin": "https://evil.example"}
OUR_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Browser:
    def __init__(self, url: str) -> None:
        self.url = url
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.http.request(
            method, self.url + path, allow_redirects=False, **options
        ) as answer:
            body = await answer.text()
            self.headers = answer.headers
            return answer.status, json.loads(body) if body else None

    async def sign_in(self, user_id: str, **more: str) -> None:
        body = {"email": f"{user_id}@example.com", "id": user_id, **more}
        status, _ = await self.ask("POST", "/auth/dev-login", json=body)
        assert status == 200

    async def post(self, **options: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/api/route", json={"documentName": "example"}, **options)


async def arrived(inngest: EventApi, accepted: dict[str, str]) -> dict[str, Any]:
    arrival = await inngest.ledger.wait_for_id(accepted["eventId"])
    assert arrival is not None
    return json.loads(arrival.event)


@module_fixture
async def inngest() -> AsyncIterator[EventApi]:
    async with EventApi() as api:
        yield api


@module_fixture
async def provider() -> AsyncIterator[ForgedProvider]:
    async with ForgedProvider() as provider:
        yield provider


@module_fixture
async def development(
    tmp_path_factory: pytest.TempPathFactory, inngest: EventApi, provider: ForgedProvider
) -> AsyncIterator[Process]:
    path = tmp_path_factory.mktemp("development") / "outbox.db"
    settings = environment(
        f"sqlite:///{path}",
        inngest.url,
        NEXTAUTH_SECRET=SECRET,
        OPERATOR_EMAILS="kim@example.com",
        ALLOWED_ORIGINS=FRONT,
        METRICS_TOKEN="a-token-of-the-tests-only",
        LOG_LEVEL="info",
        LOG_FORMAT="json",
    )
    async with running("serve", environment=settings) as process:
        yield process


@module_fixture
async def production(
    tmp_path_factory: pytest.TempPathFactory, inngest: EventApi, provider: ForgedProvider
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
async def browser(development: Process) -> AsyncIterator[Browser]:
    browser = Browser(development.url)
    yield browser
    await browser.http.close()


@pytest_asyncio.fixture(loop_scope="module")
async def other(development: Process) -> AsyncIterator[Browser]:
    browser = Browser(development.url)
    yield browser
    await browser.http.close()


@pytest_asyncio.fixture(loop_scope="module")
async def production_browser(production: Process) -> AsyncIterator[Browser]:
    browser = Browser(production.url)
    yield browser
    await browser.http.close()


async def test_a_developer_posts_and_signs_out(browser: Browser, inngest: EventApi) -> None:
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
    browser: Browser, inngest: EventApi, version: str
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


@pytest.mark.parametrize("version", ["v4", "v5"])
async def test_a_front_ends_cookie_that_must_not_count_is_no_session(
    browser: Browser, version: str
) -> None:
    for case in VECTORS[version]["negative"]:
        cookie = f"{case['cookie_name']}={case['token']}"
        if case["secret"] != SECRET:
            cookie = cookie[:-4] + "AAAA"
        status, body = await browser.post(headers={"Cookie": cookie})
        assert (status, body["code"]) == (401, "session_required")


async def test_an_event_is_seen_by_its_owner_and_operators_only(
    browser: Browser, other: Browser, development: Process
) -> None:
    await browser.sign_in("ada")
    _, accepted = await browser.post()
    path = f"/api/events/{accepted['eventId']}"
    assert (await browser.ask("GET", path))[0] == 200
    status, body = await other.ask("GET", path)
    assert (status, body["code"]) == (401, "session_required")
    await other.sign_in("eve")
    status, body = await other.ask("GET", path)
    assert (status, body["code"]) == (404, "not_found")
    await other.sign_in("kim")
    assert (await other.ask("GET", path))[0] == 200
    await development.said(f'"show_event".*{accepted["eventId"]}|{accepted["eventId"]}.*show_event')


async def test_settings_show_in_the_next_event(
    browser: Browser, other: Browser, inngest: EventApi
) -> None:
    await browser.sign_in("ada", organizationId="org")
    await other.sign_in("kim")
    organization = "/api/settings/organization/org"
    assert (await other.ask("PUT", organization, json={"who": "org", "deep": {"a": 1}}))[0] == 200
    status, body = await browser.ask("PUT", organization, json={"who": "ada"})
    assert (status, body["code"]) == (403, "operator_required")
    for own, who in (({}, "org"), ({"who": "ada"}, "ada"), ({"who": None}, None)):
        _, effective = await browser.ask("PUT", "/api/settings", json=own)
        assert (effective["who"], effective["deep"]) == (who, {"a": 1})
        _, accepted = await browser.post()
        event = await arrived(inngest, accepted)
        assert event["data"]["appSettings"] == effective


class TestOtherSites:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/api/route"),
            ("PUT", "/api/settings"),
            ("PUT", "/api/settings/organization/org"),
            ("POST", "/api/uploads"),
            ("POST", "/auth/dev-login"),
            ("POST", "/auth/logout"),
        ],
    )
    @pytest.mark.parametrize("headers", [EVIL, {"Sec-Fetch-Site": "cross-site"}], ids=str)
    async def test_what_another_site_caused_is_refused(
        self, browser: Browser, method: str, path: str, headers: dict[str, str]
    ) -> None:
        await browser.sign_in("kim")
        status, body = await browser.ask(method, path, json={}, headers=headers)
        assert (status, body["code"]) == (403, "cross_site_request")
        assert (await browser.ask("GET", "/auth/session"))[1]["user"]["id"] == "kim"

    async def test_the_session_is_asked_for_first(self, browser: Browser) -> None:
        status, body = await browser.post(headers=EVIL)
        assert (status, body["code"]) == (401, "session_required")

    async def test_an_allowed_origin_posts_and_reads(self, browser: Browser) -> None:
        await browser.sign_in("ada")
        status, _ = await browser.ask(
            "OPTIONS",
            "/api/route",
            headers={"Origin": FRONT, "Access-Control-Request-Method": "POST"},
        )
        assert status == 204
        assert browser.headers["Access-Control-Allow-Origin"] == FRONT
        for path in ("/api/route", "/api/nothing"):
            await browser.ask(
                "POST",
                path,
                json={"documentName": "example"},
                headers={"Origin": FRONT, "Sec-Fetch-Site": "same-site"},
            )
            assert browser.headers["Access-Control-Allow-Origin"] == FRONT
            assert browser.headers["Access-Control-Allow-Credentials"] == "true"

    async def test_a_preflight_of_another_origin_is_refused(self, browser: Browser) -> None:
        status, body = await browser.ask(
            "OPTIONS", "/api/route", headers={**EVIL, "Access-Control-Request-Method": "POST"}
        )
        assert (status, body["code"]) == (403, "cross_site_request")
        assert "Access-Control-Allow-Origin" not in browser.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/auth/session", 200),
        ("POST", "/api/route", 401),
        ("GET", "/nowhere", 404),
        ("GET", "/api/route", 405),
        ("GET", "/auth/login", 404),
    ],
)
async def test_every_answer_carries_the_security_headers(
    browser: Browser, method: str, path: str, status: int
) -> None:
    assert (await browser.ask(method, path))[0] == status
    assert OUR_HEADERS.items() <= dict(browser.headers).items()
    assert "frame-ancestors 'none'" in browser.headers["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in browser.headers


async def test_the_metrics_are_for_this_machine_and_who_has_the_token(browser: Browser) -> None:
    async def ask(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with browser.http.get(f"{browser.url}/metrics", headers=named) as answer:
            return answer.status

    assert await ask() == 200
    assert await ask(X_Forwarded_For="127.0.0.1") == 401
    assert await ask(X_Forwarded_For="127.0.0.1", Authorization="Bearer wrong") == 401
    token = "Bearer a-token-of-the-tests-only"
    assert await ask(X_Forwarded_For="127.0.0.1", Authorization=token) == 200


async def test_no_secret_and_no_cookie_is_logged(browser: Browser, development: Process) -> None:
    await browser.sign_in("ada")
    cookie = next(iter(browser.http.cookie_jar)).value
    await browser.post()
    await browser.ask("GET", f"/healthz?token={cookie}")
    await development.said('"/healthz"')
    logged = "".join(development.lines)
    assert cookie[:20] not in logged
    assert SECRET not in logged


class TestProduction:
    async def test_there_is_no_development_sign_in(self, production_browser: Browser) -> None:
        body = {"email": "ada@example.com"}
        status, answer = await production_browser.ask("POST", "/auth/dev-login", json=body)
        assert (status, answer["code"]) == (404, "not_found")

    async def test_without_their_secret_front_end_cookies_are_nothing(
        self, production_browser: Browser
    ) -> None:
        case = VECTORS["v4"]["vectors"][0]
        cookie = f"{case['cookie_name']}={case['token']}"
        status, answer = await production_browser.post(headers={"Cookie": cookie})
        assert (status, answer["code"]) == (401, "session_required")

    async def test_a_user_signs_in_at_the_provider_and_posts(
        self, production_browser: Browser, provider: ForgedProvider, inngest: EventApi
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

    async def test_browsers_are_told_to_stay_on_https(self, production_browser: Browser) -> None:
        await production_browser.ask("GET", "/healthz")
        assert production_browser.headers["Strict-Transport-Security"].startswith("max-age=")
