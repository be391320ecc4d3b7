"""Which origins may read the answers, and what a browser is told before it asks."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from service.errors import CrossSiteRequestError
from service.web.server.cross_site import CrossSite

FRONT = "https://front.example.com"
HEADERS = "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, traceparent"


class Site:
    """What an application does with a request, with what the rule installs."""

    def __init__(self, *allowed: str) -> None:
        self.app = web.Application()
        CrossSite(allowed).install(self.app)
        self.handled = 0

    async def ask(self, method: str, **headers: str) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = make_mocked_request(method, "/", headers=named, app=self.app)

        async def handler(_: web.Request) -> web.StreamResponse:
            self.handled += 1
            return web.Response(text="handled")

        [preflight] = self.app.middlewares
        answer = await preflight(request, handler)  # type: ignore[arg-type]
        for share in self.app.on_response_prepare:
            await share(request, answer)
        assert isinstance(answer, web.StreamResponse)
        return answer


def test_without_allowed_origins_nothing_is_installed() -> None:
    app = Site().app
    assert (list(app.middlewares), list(app.on_response_prepare)) == ([], [])


async def test_a_preflight_of_an_allowed_origin_is_told_what_it_may_do() -> None:
    site = Site(FRONT)
    answer = await site.ask("OPTIONS", Origin=FRONT, Access_Control_Request_Method="POST")
    assert (answer.status, site.handled) == (204, 0)
    headers = answer.headers
    assert headers["Access-Control-Allow-Origin"] == FRONT
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Access-Control-Allow-Methods"] == "DELETE, GET, POST, PUT"
    assert headers["Access-Control-Max-Age"] == "600"
    assert headers["Access-Control-Allow-Headers"] == HEADERS
    assert headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("x-inngest-env", f"{HEADERS}, x-inngest-env"),
        ("content-type, X-Inngest-Event-Id-Seed ,x-other", f"{HEADERS}, X-Inngest-Event-Id-Seed"),
        ("", HEADERS),
        ("x-inngest-", HEADERS),
        ("x-inngest-a b", HEADERS),
    ],
)
async def test_headers_of_inngest_are_allowed_by_name(asked: str, allowed: str) -> None:
    answer = await Site(FRONT).ask(
        "OPTIONS",
        Origin=FRONT,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers=asked,
    )
    assert answer.headers["Access-Control-Allow-Headers"] == allowed


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
    assert answer.headers["Access-Control-Allow-Origin"] == FRONT
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    exposed = "ETag, Idempotent-Replayed, Location, Retry-After, X-Request-Id"
    assert answer.headers["Access-Control-Expose-Headers"] == exposed


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {}])
async def test_another_origin_may_not_and_a_cache_is_told(headers: dict[str, str]) -> None:
    answer = await Site(FRONT).ask("GET", **headers)
    assert answer.headers["Vary"] == "Origin"
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


def post(origin: str, **headers: str) -> None:
    given = {"Host": "app.example.com", "Origin": origin, **headers}
    CrossSite([FRONT]).check(make_mocked_request("POST", "/", headers=given))


def test_without_more_words_clients_may_use_http_and_no_proxy_is_trusted() -> None:
    post("http://app.example.com")
    with pytest.raises(CrossSiteRequestError):
        post("https://")
    with pytest.raises(CrossSiteRequestError):
        post("https://:443", Host="")
    with pytest.raises(CrossSiteRequestError):
        post("https://", Host=":443")
