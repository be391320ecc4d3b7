"""Requests from other sites: what passes, and which origins may read the answers."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from inngest_outbox.errors import CrossSiteRequestError
from inngest_outbox.web.server.cross_site import CrossSite
from inngest_outbox.web.server.proxies import Proxies

FRONT = "https://front.example.com"
FRONTS = ["https://first.example.com", FRONT]
HOST = "app.example.com"

PASSES = [
    {},
    {"Origin": "https://app.example.com"},
    {"Origin": "http://app.example.com"},
    {"Origin": "https://app.example.com:443"},
    {"Origin": "https://APP.example.com", "Host": "app.EXAMPLE.com"},
    {"Origin": "https://app.example.com", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": FRONT},
    {"Origin": FRONT, "Sec-Fetch-Site": "cross-site"},
    {"Origin": FRONT, "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://app.example.com:8080", "Host": "app.example.com:8080"},
    {"Origin": "http://app.example.com", "Host": "app.example.com:80"},
    {"Origin": "https://www.example.com", "X-Forwarded-Host": "www.example.com"},
    {"Origin": "https://www.example.com", "X-Forwarded-Host": "www.example.com , inner"},
    {"Origin": "https://app.example.com", "X-Forwarded-Host": "www.example.com"},
    {"Origin": "http://[::1]:3000", "Host": "[::1]:3000"},
]
FAILS = [
    {"Origin": "https://evil.example"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://other.example.com", "Sec-Fetch-Site": "same-site"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "https://"},
    {"Origin": "https://", "Host": ":443"},
    {"Origin": "https://:443", "Host": ""},
    {"Origin": "app.example.com"},
    {"Origin": "file://app.example.com"},
    {"Origin": "chrome-extension://app.example.com"},
    {"Origin": "https://app.example.com.evil.example"},
    {"Origin": "https://evil.example/app.example.com"},
    {"Origin": "https://app.example.com:8443"},
    {"Origin": "https://user@app.example.com"},
    {"Origin": "http://app.example.com:443"},
    {"Origin": "https://front.example.com.evil.example"},
    {"Origin": "http://front.example.com"},
    {"Origin": "https://app.example.com", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://app.example.com", "Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "SAME-ORIGIN "},
    {"Sec-Fetch-Site": ""},
    {"Origin": "https://evil.example", "X-Forwarded-Host": ""},
    {"Origin": "https://evil.example", "X-Forwarded-Host": "www.example.com"},
]


def ask(
    method: str,
    headers: dict[str, str],
    *,
    remote: str = "127.0.0.1",
    trusted: tuple[str, ...] = (),
    secure: bool = False,
) -> None:
    request = make_mocked_request(method, "/", headers={"Host": HOST, "Cookie": "x=y", **headers})
    rule = CrossSite(FRONTS, secure=secure, proxies=Proxies(trusted))
    rule.check(request.clone(remote=remote))


@pytest.mark.parametrize("headers", PASSES, ids=str)
def test_a_request_of_our_own_or_of_an_allowed_origin_passes(headers):
    ask("POST", headers)


@pytest.mark.parametrize("headers", FAILS, ids=str)
def test_a_request_that_another_site_caused_is_refused(headers):
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(CrossSiteRequestError):
            ask(method, headers)
    for method in ("GET", "HEAD", "OPTIONS"):  # reading is left to the browser's own rules
        ask(method, headers)


HTTP = {"Origin": "http://app.example.com"}
PROXIED = {"Origin": "https://www.example.com", "X-Forwarded-Host": "www.example.com"}


def test_where_clients_use_https_an_http_origin_is_another_site():
    ask("POST", {"Origin": "https://app.example.com"}, secure=True)
    with pytest.raises(CrossSiteRequestError):
        ask("POST", HTTP, secure=True)
    with pytest.raises(CrossSiteRequestError):
        ask("POST", {**HTTP, "X-Forwarded-Proto": "https"})


def test_a_forwarded_host_counts_from_trusted_proxies_only():
    ask("POST", PROXIED, remote="10.0.0.9", trusted=("10.0.0.0/24", "fd00::/8"))
    ask("POST", PROXIED, remote="fd00::9", trusted=("10.0.0.0/24", "fd00::/8"))
    for remote in ("::ffff:127.0.0.1", "127.8.0.1", "::1"):
        ask("POST", PROXIED, remote=remote)
    for remote, trusted in (
        ("10.0.0.9", ()),
        ("127.0.0.1", ("10.0.0.0/24",)),
        ("10.0.1.9", ("10.0.0.0/24",)),
        ("", ("10.0.0.0/24",)),
    ):
        with pytest.raises(CrossSiteRequestError):
            ask("POST", PROXIED, remote=remote, trusted=trusted)


HEADERS = "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, traceparent"

READABLE = {
    "Access-Control-Allow-Origin": FRONT,
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Expose-Headers": "ETag, Idempotent-Replayed, Location, Retry-After, "
    "X-Request-Id",
}


class Site:
    """What an application does with a request, with what the rule installs."""

    def __init__(self, *allowed: str) -> None:
        self.app = web.Application()
        CrossSite(allowed, secure=False, proxies=Proxies()).install(self.app)
        self.handled = 0

    async def ask(self, method: str, **headers: str) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = make_mocked_request(method, "/", headers=named, app=self.app)

        async def handler(_: web.Request) -> web.StreamResponse:
            self.handled += 1
            return web.Response(text="handled", headers={"Vary": "Accept"})

        [preflight] = self.app.middlewares
        answer = await preflight(request, handler)  # type: ignore[arg-type]
        for share in self.app.on_response_prepare:
            await share(request, answer)
        assert isinstance(answer, web.StreamResponse)
        return answer


def test_without_allowed_origins_nothing_is_installed() -> None:
    app = Site().app
    assert (list(app.middlewares), list(app.on_response_prepare)) == ([], [])


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("x-inngest-env, x-inngest-sdk", f"{HEADERS}, x-inngest-env, x-inngest-sdk"),
        ("content-type, X-Inngest-Event-Id-Seed ,x-other", f"{HEADERS}, X-Inngest-Event-Id-Seed"),
        ("", HEADERS),
        ("x-inngest-", HEADERS),
        (f"x-inngest-{'a' * 64}", f"{HEADERS}, x-inngest-{'a' * 64}"),
        (f"x-inngest-{'a' * 65}", HEADERS),
        ("x-inngest-a b", HEADERS),
    ],
)
async def test_a_preflight_is_told_what_it_may_do_and_headers_of_inngest_are_allowed_by_name(
    asked: str, allowed: str
) -> None:
    site = Site(FRONT)
    answer = await site.ask(
        "OPTIONS",
        Origin=FRONT,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers=asked,
    )
    assert (answer.status, site.handled) == (204, 0)
    assert dict(answer.headers) == {
        **READABLE,
        "Access-Control-Allow-Methods": "DELETE, GET, POST, PUT",
        "Access-Control-Max-Age": "600",
        "Access-Control-Allow-Headers": allowed,
        "Vary": "Origin",
    }


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {}])
async def test_a_preflight_of_another_origin_is_refused(headers: dict[str, str]) -> None:
    site = Site(FRONT)
    with pytest.raises(CrossSiteRequestError):
        await site.ask("OPTIONS", Access_Control_Request_Method="POST", **headers)
    assert site.handled == 0


@pytest.mark.parametrize(
    ("method", "headers"),
    [("OPTIONS", {}), ("GET", {}), ("POST", {"Access_Control_Request_Method": "POST"})],
)
async def test_what_is_no_preflight_is_handled(method: str, headers: dict[str, str]) -> None:
    site = Site(FRONT)
    assert (await site.ask(method, Origin=FRONT, **headers)).status == 200
    assert site.handled == 1


async def test_an_allowed_origin_may_read_the_answer_and_its_headers() -> None:
    answer = await Site(FRONT).ask("GET", Origin=FRONT)
    assert READABLE.items() <= answer.headers.items()


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {}])
async def test_another_origin_may_not_and_a_cache_is_told(headers: dict[str, str]) -> None:
    answer = await Site(FRONT).ask("GET", **headers)
    assert answer.headers.getall("Vary") == ["Accept", "Origin"]
    assert not [name for name in answer.headers if name.startswith("Access-Control")]
