"""Sign-ins by browsers that bring what is not theirs.

The honest flow stands first, so that a refusal below is the attack's doing.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import ClientSession, web

from inngest_outbox.identity.cookie_session import CookieSessionStorage
from inngest_outbox.identity.oidc import OidcSignIn
from inngest_outbox.identity.oidc_provider import OidcProvider
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.sign_in_attempt import AttemptCookie
from inngest_outbox.web.server.proxies import Proxies
from inngest_outbox.web.signin.oidc import OidcResource
from tests.support.forged_provider import CLIENT_ID, CLIENT_SECRET
from tests.support.memory_scopes import revisions
from tests.support.oidc_browser import refused


async def test_an_honest_sign_in_ends_in_a_session_and_where_it_began(browser, provider):
    asked = await browser.begin("/documents?page=2")
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["client_id"] == CLIENT_ID
    assert asked["scope"] == "openid email profile"
    answer = await browser.finish(provider, asked)
    assert answer.status == 302
    assert answer.headers["Location"] == "/documents?page=2"
    user = await browser.user()
    assert (user["id"], user["email"], user["emailVerified"]) == ("ada", "ada@example.com", True)


@pytest.mark.parametrize("host", ["a@b", "localhost/evil", "[::1"])
async def test_a_sign_in_for_a_host_that_is_none_is_refused(browser, host):
    answer = await browser.http.get(
        browser._service.make_url("/auth/login"), headers={"Host": host}, allow_redirects=False
    )
    assert answer.status == 400
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("said", "scheme"), [("https", "https"), ("HTTPS", "https"), ("javascript", "http")]
)
async def test_a_proxy_says_http_or_https(browser, said, scheme):
    answer = await browser.http.get(
        browser._service.make_url("/auth/login"),
        headers={"X-Forwarded-Proto": said, "X-Forwarded-Host": "app.example.com"},
        allow_redirects=False,
    )
    asked = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
    assert asked["redirect_uri"] == f"{scheme}://app.example.com/auth/callback"


async def test_a_look_at_the_head_of_a_sign_in_begins_none_and_uses_none_up(browser, provider):
    asked = await browser.begin()
    for path in ("/auth/login", "/auth/callback"):
        head = await browser.http.head(browser._service.make_url(path))
        assert (head.status, "Set-Cookie" in head.headers) == (405, False)
    answer = await browser.finish(provider, asked)
    assert (answer.status, answer.headers["Location"]) == (302, "/")


class TestTheBrowser:
    @pytest.mark.parametrize(
        "changed",
        [
            {"state": "wrong"},
            {"state": ""},
            {"state": ...},
            {"state": "\u20ac"},
            {"code": ...},
            {"code": ""},
            {"code": "never-issued"},
            {"code": ..., "error": "access_denied"},
            {"error": "access_denied"},
            {"iss": "https://evil.example"},
        ],
        ids=str,
    )
    async def test_an_answer_that_does_not_fit_is_refused(self, browser, provider, changed):
        asked = await browser.begin()
        await refused(browser, await browser.finish(provider, asked, **changed))

    async def test_a_missing_issuer_is_refused_where_the_provider_promises_it(
        self, browser, provider
    ):
        provider.metadata["authorization_response_iss_parameter_supported"] = True
        asked = await browser.begin()
        await refused(browser, await browser.finish(provider, asked, iss=...))

    async def test_an_attackers_answer_signs_no_other_browser_in(
        self, browser, other_browser, provider
    ):
        """Signing a victim in as the attacker: the callback address alone is worth nothing."""
        asked = await browser.begin()
        await refused(other_browser, await other_browser.finish(provider, asked))
        await other_browser.begin()
        await refused(other_browser, await other_browser.finish(provider, asked))

    async def test_a_code_of_another_attempt_is_refused(self, browser, other_browser, provider):
        """A stolen code does not fit the thief's own attempt: PKCE."""
        stolen = provider.authorize(await browser.begin())
        asked = await other_browser.begin()
        answer = await other_browser.finish(provider, asked, code=stolen)
        await refused(other_browser, answer)

    async def test_a_replayed_callback_is_refused(self, browser, other_browser, provider):
        asked = await browser.begin()
        kept = {cookie.key: cookie.value for cookie in browser.http.cookie_jar}
        code = provider.authorize(asked)
        answer = await browser.finish(provider, asked, code=code)
        assert answer.status == 302
        other_browser.http.cookie_jar.update_cookies(kept)
        await refused(other_browser, await other_browser.finish(provider, asked, code=code))

    async def test_a_finished_attempt_leaves_no_cookie_behind(self, browser, provider):
        await browser.finish(provider, await browser.begin())
        assert [cookie.key for cookie in browser.http.cookie_jar] == ["outbox_session"]

    @pytest.mark.parametrize("value", ["", "forged"])
    async def test_a_forged_attempt_is_refused(self, browser, provider, value):
        asked = await browser.begin()
        browser.http.cookie_jar.clear()
        browser.http.headers["Cookie"] = f"outbox_sign_in={value}"
        await refused(browser, await browser.finish(provider, asked))


@pytest.mark.parametrize(
    ("headers", "secure", "expected"),
    [
        ({"Host": "app.example.com"}, True, "https://app.example.com"),
        ({"Host": "app.example.com:8443"}, True, "https://app.example.com:8443"),
        ({"Host": "localhost:3000"}, False, "http://localhost:3000"),
        (
            {"X-Forwarded-Host": "app.example.com, inner", "X-Forwarded-Proto": "https"},
            False,
            "https://app.example.com",
        ),
    ],
)
async def test_the_way_back_is_the_origin_that_the_browser_sees(
    aiohttp_client, provider, headers, secure, expected
):
    async with ClientSession() as http:
        asked_provider = OidcProvider(provider.issuer, CLIENT_ID, CLIENT_SECRET, http)
        oidc = OidcSignIn(asked_provider, user_issuer="https://issuer.example")
        sessions = Sessions(CookieSessionStorage(["secret"], secure=secure), revisions=revisions())
        cookie = AttemptCookie(["secret"], secure=secure)
        app = web.Application()
        app.add_routes(
            OidcResource(oidc, sessions, cookie, secure=secure, proxies=Proxies()).routes()
        )
        client = await aiohttp_client(app)
        answer = await client.get("/auth/login", headers=headers, allow_redirects=False)
        asked = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
        assert asked["redirect_uri"] == f"{expected}/auth/callback"
        assert ("Secure" in answer.headers["Set-Cookie"]) is secure
