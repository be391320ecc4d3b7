"""What an OpenID provider is asked, and which of its answers count."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast
from urllib.parse import parse_qsl

import aiohttp
import pytest
import structlog
from joserfc.jwk import ECKey
from yarl import URL

from inngest_outbox.errors import ProviderUnavailableError, SignInFailedError
from inngest_outbox.identity.oidc import OidcSignIn
from inngest_outbox.identity.oidc_provider import OidcProvider, ProviderRequests, Tokens
from inngest_outbox.identity.sign_in_attempt import begin_attempt
from tests.support.clock import Clock
from tests.support.virtual_time import in_virtual_time

ISSUER = "https://issuer.example"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
MIB = 1024 * 1024
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/jwks",
    "userinfo_endpoint": f"{ISSUER}/userinfo",
}
OLD, NEW = (ECKey.generate_key("P-256", {"kid": kid}).as_dict(private=False) for kid in ("o", "n"))


class Web:
    """An HTTP client: `said` is the body or the error of each address, `status` its status.

    Any other address is not found.
    """

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said
        self.status = 200
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    @asynccontextmanager
    async def request(self, method: str, url: URL | str, **options: Any) -> AsyncIterator[Any]:
        self.asked.append((method, str(url), options))
        said = self.said.get(str(url))
        if isinstance(said, Exception):
            raise said
        yield _Answer(url, 404 if said is None else self.status, said)

    def get(self, url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self.request("GET", url, **options)

    @property
    def urls(self) -> list[str]:
        return [url for _, url, _ in self.asked]


class _Answer:
    def __init__(self, url: URL | str, status: int, said: Any) -> None:
        self.url, self.status = url, status
        self.content = self
        self._body = said if isinstance(said, bytes) else json.dumps(said).encode()

    async def iter_any(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), MIB):
            yield self._body[start : start + MIB]


@pytest.fixture
def web() -> Web:
    return Web(
        {
            DISCOVERY: METADATA,
            f"{ISSUER}/jwks": {"keys": [OLD]},
            f"{ISSUER}/token": {"id_token": "id", "access_token": "access"},
            f"{ISSUER}/userinfo": {"sub": "ada"},
        }
    )


def provider(
    web: Web, clock: Clock, *, secret: str | None = "s cret", issuer: str = ISSUER
) -> OidcProvider:
    return OidcProvider(issuer, "client", secret, cast("aiohttp.ClientSession", web), clock=clock)


def requests(web: Web, clock: Clock) -> ProviderRequests:
    return ProviderRequests(cast("aiohttp.ClientSession", web), 8.0, clock)


async def test_a_request_follows_no_redirection_and_has_a_limit_of_time(
    web: Web, clock: Clock
) -> None:
    url = f"{ISSUER}/a%2fb?c=%7E"  # as the provider writes it
    web.said[url] = b"x"
    assert await requests(web, clock).ask("POST", url, data="d") == b"x"
    [(method, asked, options)] = web.asked
    assert (method, asked, options["data"], options["allow_redirects"]) == ("POST", url, "d", False)
    assert options["timeout"] == aiohttp.ClientTimeout(total=8.0)
    assert await requests(web, clock).published(url) == b"x"
    assert web.asked[1][0] == "GET"
    assert web.asked[1][2]["headers"] == {"Accept": "application/json"}
    await provider(web, clock).metadata()
    assert web.asked[2][2]["timeout"] == aiohttp.ClientTimeout(total=8.0)


@pytest.mark.parametrize(
    ("status", "asked", "published"),
    [
        (400, SignInFailedError, ProviderUnavailableError),
        (403, SignInFailedError, ProviderUnavailableError),
        *((status, *[ProviderUnavailableError] * 2) for status in (201, 302, 401, 404, 429, 500)),
    ],
)
async def test_a_refusal_is_told_from_a_fault_of_the_provider_and_logged(
    web: Web, clock: Clock, status: int, asked: type[Exception], published: type[Exception]
) -> None:
    web.status = status
    with structlog.testing.capture_logs() as lines:
        with pytest.raises(asked):
            await requests(web, clock).ask("GET", DISCOVERY)
        with pytest.raises(published):
            await requests(web, clock).published(DISCOVERY)
    line = {"event": "oidc_provider_refused", "log_level": "warning", "status": status}
    assert lines == [{**line, "path": "/.well-known/openid-configuration"}] * 2


@pytest.mark.parametrize("error", [aiohttp.ClientConnectionError(), TimeoutError(), ValueError()])
async def test_who_did_not_answer_is_not_asked_for_five_seconds(
    web: Web, clock: Clock, error: Exception
) -> None:
    asking = requests(web, clock)
    good, web.said[DISCOVERY] = web.said[DISCOVERY], error
    for later, asked in ((0.0, 1), (4.9, 1), (5.0, 2)):
        clock.now = 1000.0 + later
        with pytest.raises(ProviderUnavailableError):
            await asking.ask("GET", DISCOVERY)
        assert len(web.asked) == asked
    web.said[DISCOVERY] = good
    clock.now = 1010.0
    assert await asking.ask("GET", DISCOVERY)


@pytest.mark.parametrize("issuer", [ISSUER, f"{ISSUER}/"])
async def test_its_metadata_are_read_once_an_hour(web: Web, clock: Clock, issuer: str) -> None:
    one = provider(web, clock, issuer=issuer)
    for later, read in ((0, 1), (3600, 1), (3600.1, 2)):
        clock.now = 1000.0 + later
        metadata = await one.metadata()
        assert metadata.token_endpoint == f"{ISSUER}/token"
        assert metadata.id_token_signing_alg_values_supported == ("RS256",)
        assert metadata.authorization_response_iss_parameter_supported is False
        assert len(web.asked) == read


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "https://another.example"}, "names another issuer"),
        *(
            ({name: "http://issuer.example/x"}, "insecure endpoint")
            for name in METADATA
            if name != "issuer"
        ),
        ({"token_endpoint": 1}, "unexpected form"),
        ({"jwks_uri": "ftp://issuer.example/x"}, "insecure endpoint"),
        ({"token_endpoint": "https://[issuer.example/x"}, "insecure endpoint"),
    ],
)
async def test_metadata_that_are_odd_begin_nothing(
    web: Web, clock: Clock, changes: dict[str, object], words: str
) -> None:
    web.said[DISCOVERY] = {**METADATA, **changes}
    with pytest.raises(ProviderUnavailableError, match=words):
        await provider(web, clock).metadata()


async def test_an_issuer_on_this_machine_may_do_without_https(web: Web, clock: Clock) -> None:
    local = "http://127.0.0.1:9"
    found = {name: url.replace(ISSUER, local) for name, url in METADATA.items()}
    found["userinfo_endpoint"] = f"{ISSUER}/userinfo"
    web.said[f"{local}/.well-known/openid-configuration"] = {**found, "issuer": f"{local}/"}
    assert await provider(web, clock, issuer=local).metadata()
    web.status = 403  # a provider that refuses to be read is no sign-in that failed
    with pytest.raises(ProviderUnavailableError):
        await provider(web, clock, issuer=local).metadata()


async def test_its_keys_are_read_again_after_an_hour_or_when_asked(web: Web, clock: Clock) -> None:
    one = provider(web, clock)
    assert [key.kid for key in (await one.keys()).keys] == ["o"]
    web.said[f"{ISSUER}/jwks"] = {"keys": [OLD, NEW]}
    for later, found in ((0, 2), (9.9, None), (10.0, 2)):
        clock.now = 1000.0 + later
        newer = await one.newer_keys()
        assert (newer and len(newer.keys)) == found
    assert web.urls.count(f"{ISSUER}/jwks") == 3
    clock.now = 1000.0 + 10 + 3600
    await one.keys()
    assert web.urls.count(f"{ISSUER}/jwks") == 3
    clock.now += 0.1
    await one.keys()
    assert web.urls.count(f"{ISSUER}/jwks") == 4


@pytest.mark.parametrize("said", [{}, {"keys": []}, {"keys": 1}, []])
async def test_without_usable_keys_it_is_unavailable(web: Web, clock: Clock, said: object) -> None:
    web.said[f"{ISSUER}/jwks"] = said
    with pytest.raises(ProviderUnavailableError):
        await provider(web, clock).keys()


BASIC = "Basic " + base64.b64encode(b"client:s cret").decode()
CLIENT = {"client_id": "client"}


@pytest.mark.parametrize(
    ("secret", "methods", "authorization", "in_form"),
    [
        ("s cret", None, BASIC, {}),
        ("s cret", ["client_secret_post", "client_secret_basic"], BASIC, {}),
        ("s cret", ["client_secret_post"], None, {**CLIENT, "client_secret": "s cret"}),
        (None, None, None, CLIENT),
    ],
)
async def test_a_code_is_exchanged_as_the_provider_wants_it(
    web: Web,
    clock: Clock,
    secret: str | None,
    methods: list[str] | None,
    authorization: str | None,
    in_form: dict[str, str],
) -> None:
    more = {"token_endpoint_auth_methods_supported": methods} if methods else {}
    web.said[DISCOVERY] = {**METADATA, **more}
    tokens = await provider(web, clock, secret=secret).exchange("c/1", "verifier", "https://own/cb")
    assert tokens == Tokens("id", "access")
    method, url, options = web.asked[-1]
    assert (method, url) == ("POST", f"{ISSUER}/token")
    assert dict(parse_qsl(options["data"], keep_blank_values=True)) == {
        "grant_type": "authorization_code",
        "code": "c/1",
        "code_verifier": "verifier",
        "redirect_uri": "https://own/cb",
        **in_form,
    }
    headers = dict(options["headers"])
    assert headers.get("Authorization") == authorization
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert headers["Accept"] == "application/json"


async def test_the_userinfo_is_asked_with_the_token_where_there_is_one(
    web: Web, clock: Clock
) -> None:
    assert await provider(web, clock).userinfo("access") == {"sub": "ada"}
    method, url, options = web.asked[-1]
    assert (method, url) == ("GET", f"{ISSUER}/userinfo")
    expected = {"Authorization": "Bearer access", "Accept": "application/json"}
    assert options["headers"] == expected
    web.said[DISCOVERY] = {**METADATA, "userinfo_endpoint": None}
    assert await provider(web, clock).userinfo("access") == {}
    assert web.urls.count(f"{ISSUER}/userinfo") == 1


class Hanging:
    """A provider that never answers."""

    async def metadata(self) -> None:
        await asyncio.Event().wait()


@in_virtual_time
async def test_a_browser_waits_ten_seconds_for_the_provider() -> None:
    signing_in = OidcSignIn(cast("OidcProvider", Hanging()), user_issuer=ISSUER)
    attempt = begin_attempt("https://own/cb", "/")
    for step in (signing_in.begin(attempt), signing_in.finish(attempt, {"state": attempt.state})):
        began = asyncio.get_running_loop().time()
        with pytest.raises(ProviderUnavailableError):
            await step
        assert asyncio.get_running_loop().time() - began == 10.0
