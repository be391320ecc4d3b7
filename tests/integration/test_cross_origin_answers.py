"""What answers say to other origins: preflights, and the headers of every answer."""

from __future__ import annotations

import pytest
from aiohttp import web

from service.errors import RefusedError
from service.web.server.cross_site import CrossSite
from service.web.server.security_headers import install_security_headers, page_policy

FRONT = "https://front.example.com"


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


async def test_a_preflight_may_name_any_header_of_inngests_clients_and_no_other_one(start):
    asked = "content-type,x-inngest-env, X-Inngest-Event-Id-Seed,x-inngest-sdk,x-other,x-inngest"
    headers = {**PREFLIGHT, "Access-Control-Request-Headers": asked}
    answer = await (await start(FRONT)).options("/", headers=headers)
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert allowed[-3:] == ["x-inngest-env", "x-inngest-event-id-seed", "x-inngest-sdk"]
    assert "content-type" in allowed
    assert not {"x-other", "x-inngest"} & set(allowed)


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
