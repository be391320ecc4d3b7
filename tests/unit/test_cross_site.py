"""Requests from other sites: the table of what passes, preflights, and the headers of answers."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from service.errors import CrossSiteRequestError, RefusedError
from service.web.cross_site import CrossSite
from service.web.security_headers import install_security_headers, page_policy

FRONT = "https://front.example.com"
HOST = "app.example.com"

PASSES = [
    {},
    {"Origin": "https://app.example.com"},
    {"Origin": "http://app.example.com"},
    {"Origin": "https://app.example.com:443"},
    {"Origin": "https://APP.example.com"},
    {"Origin": "https://app.example.com", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": FRONT},
    {"Origin": FRONT, "Sec-Fetch-Site": "cross-site"},
    {"Origin": FRONT, "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://app.example.com:8080", "Host": "app.example.com:8080"},
    {"Origin": "https://www.example.com", "X-Forwarded-Host": "www.example.com"},
    {"Origin": "https://www.example.com", "X-Forwarded-Host": "www.example.com, inner"},
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


def ask(method: str, headers: dict[str, str]) -> None:
    request = make_mocked_request(method, "/", headers={"Host": HOST, "Cookie": "x=y", **headers})
    CrossSite([FRONT]).check(request)


@pytest.mark.parametrize("headers", PASSES, ids=str)
def test_a_request_of_our_own_or_of_an_allowed_origin_passes(headers):
    ask("POST", headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("headers", FAILS, ids=str)
def test_a_request_that_another_site_caused_is_refused(method, headers):
    with pytest.raises(CrossSiteRequestError):
        ask(method, headers)


@pytest.mark.parametrize("headers", FAILS, ids=str)
def test_reading_is_left_to_the_browsers_own_rules(headers):
    ask("GET", headers)


@web.middleware
async def refusals(request, handler):
    try:
        return await handler(request)
    except RefusedError as refused:
        return web.json_response({"code": refused.code}, status=403)


@pytest.fixture
def start(aiohttp_client):
    async def start(*allowed: str, secure: bool = True):
        async def answer(_):
            return web.json_response({})

        async def page(_):
            return web.Response(headers={"Content-Security-Policy": page_policy("1;", "p{}")})

        app = web.Application(middlewares=[refusals])
        CrossSite(allowed).install(app)
        install_security_headers(app, secure=secure)
        app.router.add_post("/", answer)
        app.router.add_get("/page", page)
        return await aiohttp_client(app)

    return start


PREFLIGHT = {"Origin": FRONT, "Access-Control-Request-Method": "POST"}


async def test_a_preflight_of_an_allowed_origin_is_answered(start):
    answer = await (await start(FRONT)).options("/", headers=PREFLIGHT)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == FRONT
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "*"])
async def test_a_preflight_of_another_origin_is_refused(start, origin):
    answer = await (await start(FRONT)).options("/", headers={**PREFLIGHT, "Origin": origin})
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_without_allowed_origins_nothing_is_shared(start):
    client = await start()
    answer = await client.options("/", headers=PREFLIGHT)
    assert answer.status == 405
    answer = await client.post("/", headers={"Origin": FRONT})
    assert not [name for name in answer.headers if name.startswith(("Access-Control", "Vary"))]


async def test_only_allowed_origins_may_read_an_answer(start):
    client = await start(FRONT)
    answer = await client.post("/", headers={"Origin": FRONT})
    assert answer.headers["Access-Control-Allow-Origin"] == FRONT
    assert "Location" in answer.headers["Access-Control-Expose-Headers"]
    answer = await client.post("/", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("path", ["/", "/nowhere"])
async def test_every_answer_carries_the_security_headers(start, path):
    answer = await (await start()).post(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


async def test_in_development_browsers_are_not_sent_to_https(start):
    answer = await (await start(secure=False)).post("/")
    assert "Strict-Transport-Security" not in answer.headers


async def test_a_page_keeps_its_own_policy_which_names_its_scripts_by_digest(start):
    answer = await (await start()).get("/page")
    assert answer.headers.getall("Content-Security-Policy") == [page_policy("1;", "p{}")]
    assert "'sha256-CImjRDTlhukYQ2AnxOi0wzgPhGQ3Mb3rVwJK24dFz1M='" in page_policy("1;")
    assert "script-src 'none'" in page_policy()
