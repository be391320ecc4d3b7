"""The security headers of every answer."""

from __future__ import annotations

import pytest
from aiohttp import web

from service.web.server.security_headers import install_security_headers, page_policy


@pytest.fixture
def start(aiohttp_client):
    async def start(*, secure: bool = True):
        async def answer(_):
            return web.json_response({})

        async def page(_):
            return web.Response(headers={"Content-Security-Policy": page_policy("1;", "p{}")})

        app = web.Application()
        install_security_headers(app, secure=secure)
        app.router.add_post("/", answer)
        app.router.add_get("/page", page)
        return await aiohttp_client(app)

    return start


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
