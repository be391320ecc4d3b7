"""Sign-ins at a provider that lies, and browsers that bring what is not theirs.

The honest flow stands first, so that a refusal below is the attack's doing.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import ClientSession, CookieJar, web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from service.errors import ProviderUnavailableError, RefusedError
from service.identity.cookie_session import CookieSessionStorage
from service.identity.oidc import OidcSignIn
from service.identity.oidc_provider import OidcProvider
from service.identity.sessions import Sessions
from service.identity.sign_in_attempt import AttemptCookie
from service.web.cross_site import CrossSite
from service.web.oidc import OidcResource
from service.web.sign_in import SignIn
from tests.forged_provider import CLIENT_ID, CLIENT_SECRET, ForgedProvider, rsa_key, sign

STATUS = {"sign_in_failed": 400, "provider_unavailable": 503}


@web.middleware
async def refusals(request, handler):
    try:
        return await handler(request)
    except RefusedError as refused:
        return web.json_response({"code": refused.code}, status=STATUS[refused.code])


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def provider():
    async with ForgedProvider() as provider:
        yield provider


@pytest.fixture
async def start(aiohttp_server, clock):
    """Starts the service's sign-in at an issuer."""
    opened = []

    async def start(issuer: str, secret: str | None = CLIENT_SECRET):
        http = ClientSession()
        opened.append(http)
        oidc = OidcSignIn(OidcProvider(issuer, CLIENT_ID, secret, http))
        sessions = Sessions(CookieSessionStorage(["secret"], secure=False))
        cookie = AttemptCookie(["secret"], secure=False, clock=clock)
        app = web.Application(middlewares=[sessions.middleware(), refusals])
        app.add_routes(OidcResource(oidc, sessions, cookie, secure=False).routes())
        app.add_routes(SignIn(sessions, CrossSite([]), development=False).routes())
        return await aiohttp_server(app)

    yield start
    for http in opened:
        await http.close()


class Browser:
    def __init__(self, service) -> None:
        self._service = service
        self.http = ClientSession(cookie_jar=CookieJar(unsafe=True))

    async def begin(self, return_to: str | None = None) -> dict[str, str]:
        params = {} if return_to is None else {"returnTo": return_to}
        answer = await self.get("/auth/login", **params)
        assert answer.status == 302, await answer.text()
        return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))

    async def finish(self, provider, asked, **changed):
        brought = {
            "code": provider.authorize(asked),
            "state": asked["state"],
            "iss": provider.issuer,
            **changed,
        }
        brought = {name: value for name, value in brought.items() if value is not ...}
        return await self.get("/auth/callback", **brought)

    async def get(self, path: str, **params: str):
        return await self.http.get(
            self._service.make_url(path), params=params, allow_redirects=False
        )

    async def user(self):
        return (await (await self.get("/auth/session")).json())["user"]


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


async def refused(browser, answer, code: str = "sign_in_failed") -> None:
    assert await answer.json() == {"code": code}
    assert await browser.user() is None


async def test_an_honest_sign_in_ends_in_a_session_and_where_it_began(browser, provider):
    asked = await browser.begin("/documents?page=2")
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["client_id"] == CLIENT_ID
    assert {"openid", "email"} <= set(asked["scope"].split())
    answer = await browser.finish(provider, asked)
    assert answer.status == 302
    assert answer.headers["Location"] == "/documents?page=2"
    user = await browser.user()
    assert (user["id"], user["email"], user["emailVerified"]) == ("ada", "ada@example.com", True)


async def test_two_attempts_share_no_secret(browser):
    first, second = await browser.begin(), await browser.begin()
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name]


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

    async def test_an_attempt_ends_after_ten_minutes(self, browser, provider, clock):
        asked = await browser.begin()
        clock.ahead = 601
        await refused(browser, await browser.finish(provider, asked))

    @pytest.mark.parametrize("value", ["", "forged", "gAAAAA", "\u20ac", "A" * 5000])
    async def test_a_forged_attempt_is_refused(self, browser, provider, value):
        asked = await browser.begin()
        browser.http.cookie_jar.clear()
        browser.http.headers["Cookie"] = f"outbox_sign_in={value}"
        await refused(browser, await browser.finish(provider, asked))

    @pytest.mark.parametrize(
        "return_to",
        [
            "https://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/%0d%0aSet-Cookie: x=y\r\n",
            "/a\r\nSet-Cookie: x=y",
            "javascript:alert(1)",
            "documents",
            " /documents",
            "",
            "/" + "a" * 1024,
            "/\u20ac",
        ],
    )
    async def test_it_comes_back_to_our_own_origin_only(self, browser, provider, return_to):
        answer = await browser.finish(provider, await browser.begin(return_to))
        assert answer.headers["Location"] == "/"
        assert "x" not in answer.cookies


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned_part(header, claims) -> str:
    return ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))


def unsigned(claims, _key):
    return unsigned_part({"alg": "none"}, claims) + "."


def with_the_public_key_as_shared_secret(claims, key):
    signed = unsigned_part({"alg": "HS256", "kid": key.kid}, claims)
    digest = hmac.digest(key.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64url(digest)}"


def with_the_client_secret(claims, key):
    secret = OctKey.import_key(CLIENT_SECRET * 2)
    return jwt.encode({"alg": "HS256", "kid": key.kid}, claims, secret, algorithms=["HS256"])


def with_a_key_of_its_own(claims, key):
    return sign(claims, rsa_key(key.kid, 1))


def with_a_key_in_its_header(claims, key):
    own = rsa_key(key.kid, 1)
    return sign(claims, own, jwk=own.as_dict(private=False))


def with_another_kind_of_key(claims, key):
    own = ECKey.generate_key("P-256", {"kid": key.kid})
    return jwt.encode({"alg": "ES256", "kid": key.kid}, claims, own)


def with_a_changed_claim(claims, key):
    header, _, signature = sign(claims, key).split(".")
    payload = base64url(json.dumps({**claims, "sub": "root"}).encode())
    return f"{header}.{payload}.{signature}"


class TestTheToken:
    @pytest.mark.parametrize(
        "claims",
        [
            {"nonce": "wrong"},
            {"nonce": ""},
            {"nonce": ...},
            {"iss": "https://evil.example"},
            {"iss": ...},
            {"aud": "another-client"},
            {"aud": ["another-client"]},
            {"aud": []},
            {"aud": ...},
            {"aud": f"{CLIENT_ID}-2"},
            {"aud": [CLIENT_ID, "another-client"]},
            {"azp": "another-client"},
            {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"},
            {"exp": 1},
            {"exp": ...},
            {"exp": "2100"},
            {"exp": True},
            {"iat": 4_000_000_000, "exp": 4_000_000_300},
            {"iat": ...},
            {"nbf": 4_000_000_000},
            {"sub": ...},
            {"sub": ..., "email": ...},
            {"sub": ""},
            {"sub": 7},
            {"sub": "line\nbreak"},
            {"sub": "x" * 256},
        ],
        ids=str,
    )
    async def test_a_claim_that_does_not_fit_is_refused(self, browser, provider, claims):
        provider.claims = claims
        await refused(browser, await browser.finish(provider, await browser.begin()))

    @pytest.mark.parametrize(
        "claims",
        [
            {"aud": [CLIENT_ID]},
            {"azp": CLIENT_ID},
            {"aud": [CLIENT_ID, "another-client"], "azp": CLIENT_ID},
            {"exp": -30},
            {"iat": 30},
        ],
    )
    async def test_what_fits_is_taken(self, browser, provider, claims):
        now = int(time.time())
        moments = {name: now + claims[name] for name in ("exp", "iat") if name in claims}
        provider.claims = {**claims, **moments}
        await browser.finish(provider, await browser.begin())
        assert (await browser.user())["id"] == "ada"

    @pytest.mark.parametrize(
        "forge",
        [
            unsigned,
            with_the_public_key_as_shared_secret,
            with_the_client_secret,
            with_a_key_of_its_own,
            with_a_key_in_its_header,
            with_another_kind_of_key,
            with_a_changed_claim,
            lambda claims, key: sign(claims, key)[:-2],
            lambda claims, key: sign(claims, key) + ".x",
            lambda _claims, _key: "",
            lambda _claims, _key: "...",
            lambda _claims, _key: "[" * 1000,
            lambda claims, key: sign({**claims, "more": "x" * 65_536}, key),
            lambda _claims, key: jwt.encode({"alg": "RS256", "kid": key.kid}, {}, key),
        ],
    )
    async def test_a_token_that_the_provider_did_not_sign_is_refused(
        self, browser, provider, forge
    ):
        provider.sign = forge
        await refused(browser, await browser.finish(provider, await browser.begin()))

    @pytest.mark.parametrize(("said", "known"), [("true", False), (1, False), (False, False)])
    async def test_an_email_is_verified_only_when_the_provider_says_true(
        self, browser, provider, said, known
    ):
        provider.claims = {"email_verified": said}
        await browser.finish(provider, await browser.begin())
        assert (await browser.user())["emailVerified"] is known

    async def test_an_email_may_come_from_the_userinfo(self, browser, provider):
        provider.claims = {"email": ..., "email_verified": ...}
        provider.userinfo = {"sub": "ada", "email": "ada@example.com", "email_verified": True}
        await browser.finish(provider, await browser.begin())
        assert (await browser.user())["email"] == "ada@example.com"

    async def test_a_userinfo_of_somebody_else_is_refused(self, browser, provider):
        provider.claims = {"email": ...}
        for info in ({"sub": "eve", "email": "root@example.com"}, {"email": "root@example.com"}):
            provider.userinfo = info
            await refused(browser, await browser.finish(provider, await browser.begin()))


class TestTheKeys:
    async def test_a_new_key_of_the_provider_is_found(self, browser, provider):
        await browser.finish(provider, await browser.begin())
        provider.rotate()
        answer = await browser.finish(provider, await browser.begin())
        assert answer.status == 302

    async def test_a_key_that_keeps_its_name_is_found(self, browser, provider):
        await browser.finish(provider, await browser.begin())
        provider.key = provider.published = rsa_key("first", 1)
        answer = await browser.finish(provider, await browser.begin())
        assert answer.status == 302

    async def test_unknown_keys_do_not_make_us_ask_again_and_again(self, browser, provider):
        provider.key = rsa_key("unpublished")
        for _ in range(5):
            await refused(browser, await browser.finish(provider, await browser.begin()))
        assert provider.requests.count("/jwks") == 2
        assert provider.requests.count("/.well-known/openid-configuration") == 1


class TestTheProvider:
    @pytest.mark.parametrize(
        ("status", "body", "code"),
        [
            (500, None, "provider_unavailable"),
            (502, b"<html>", "provider_unavailable"),
            (429, None, "provider_unavailable"),
            (302, None, "provider_unavailable"),
            (401, None, "provider_unavailable"),
            (200, b"", "provider_unavailable"),
            (200, b"<html>", "provider_unavailable"),
            (200, b"[]", "provider_unavailable"),
            (200, b"{}", "provider_unavailable"),
            (200, b'{"id_token": 7}', "provider_unavailable"),
            (200, b"[" * 100_000, "provider_unavailable"),
            (200, b'{"id_token":"x"}' + b" " * 1_100_000, "provider_unavailable"),
            (400, b'{"error":"invalid_grant"}', "sign_in_failed"),
        ],
    )
    async def test_an_answer_instead_of_tokens_is_told_apart(
        self, browser, provider, status, body, code
    ):
        provider.token_status, provider.token_body = status, body
        await refused(browser, await browser.finish(provider, await browser.begin()), code)

    async def test_a_code_follows_no_redirection(self, browser, provider):
        provider.token_status, provider.token_location = 307, "/elsewhere"
        answer = await browser.finish(provider, await browser.begin())
        await refused(browser, answer, "provider_unavailable")
        assert "/elsewhere" not in provider.requests

    @pytest.mark.parametrize(
        "metadata",
        [
            {"issuer": "https://evil.example"},
            {"issuer": 7},
            {"token_endpoint": None},
            {"jwks_uri": "file:///etc/passwd"},
            {"token_endpoint": "ftp://127.0.0.1/token"},
            {"authorization_endpoint": "javascript:alert(1)"},
        ],
        ids=str,
    )
    async def test_odd_metadata_begin_nothing(self, browser, provider, metadata):
        provider.metadata = metadata
        await refused(browser, await browser.get("/auth/login"), "provider_unavailable")

    async def test_no_signature_algorithm_but_ours_is_taken(self, browser, provider):
        provider.metadata = {"id_token_signing_alg_values_supported": ["none", "HS256"]}
        answer = await browser.finish(provider, await browser.begin())
        await refused(browser, answer, "provider_unavailable")

    async def test_a_provider_that_is_away_is_a_clear_answer(self, start):
        async with ForgedProvider() as gone:
            issuer = gone.issuer
        browser = Browser(await start(issuer))
        await refused(browser, await browser.get("/auth/login"), "provider_unavailable")
        await browser.http.close()

    async def test_a_provider_that_hangs_is_a_clear_answer(self):
        async with ForgedProvider() as provider, ClientSession() as http:
            provider.hangs = True
            asking = OidcProvider(provider.issuer, CLIENT_ID, None, http, timeout_seconds=0.1)
            with pytest.raises(ProviderUnavailableError):
                await asking.metadata()

    async def test_a_wrong_client_secret_is_our_fault_not_the_users(self, start, provider):
        browser = Browser(await start(provider.issuer, "wrong"))
        answer = await browser.finish(provider, await browser.begin())
        await refused(browser, answer, "provider_unavailable")
        await browser.http.close()


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
        oidc = OidcSignIn(OidcProvider(provider.issuer, CLIENT_ID, CLIENT_SECRET, http))
        sessions = Sessions(CookieSessionStorage(["secret"], secure=secure))
        cookie = AttemptCookie(["secret"], secure=secure)
        app = web.Application()
        app.add_routes(OidcResource(oidc, sessions, cookie, secure=secure).routes())
        client = await aiohttp_client(app)
        answer = await client.get("/auth/login", headers=headers, allow_redirects=False)
        asked = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
        assert asked["redirect_uri"] == f"{expected}/auth/callback"
        assert ("Secure" in answer.headers["Set-Cookie"]) is secure
