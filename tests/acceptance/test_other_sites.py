"""What other sites may cause at the running service, and the headers of every answer."""

from __future__ import annotations

import pytest

from tests.support.front_end import FRONT
from tests.support.poster import Poster

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = {"Origin": "https://evil.example"}
OUR_HEADERS = {
    "Server": "outbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


CHANGES = [
    ("POST", "/api/route"),
    ("PUT", "/api/settings"),
    ("PUT", "/api/settings/organization/org"),
    ("POST", "/api/uploads"),
    ("POST", "/auth/dev-login"),
    ("POST", "/auth/logout"),
]


@pytest.mark.parametrize("headers", [EVIL, {"Sec-Fetch-Site": "cross-site"}], ids=str)
async def test_what_another_site_caused_is_refused_after_the_session_was_asked_for(
    user: Poster, headers: dict[str, str]
) -> None:
    status, body = await user.ask("POST", "/api/route", json={}, headers=headers)
    assert (status, body["code"]) == (401, "session_required")
    await user.sign_in("kim")
    for method, path in CHANGES:
        status, body = await user.ask(method, path, json={}, headers=headers)
        assert (status, body["code"]) == (403, "cross_site_request"), path
        assert (await user.ask("GET", "/auth/session"))[1]["user"]["id"] == "kim", path


async def test_an_allowed_origin_posts_and_reads_and_another_may_not_ask(user: Poster) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    status, body = await user.ask("OPTIONS", "/api/route", headers={**EVIL, **asked})
    assert (status, body["code"]) == (403, "cross_site_request")
    assert "Access-Control-Allow-Origin" not in user.headers
    status, _ = await user.ask("OPTIONS", "/api/route", headers={"Origin": FRONT, **asked})
    assert status == 204
    assert user.headers["Access-Control-Allow-Origin"] == FRONT
    await user.sign_in("ada")
    headers = {"Origin": FRONT, "Sec-Fetch-Site": "same-site"}
    for path in ("/api/route", "/api/nothing"):
        await user.ask("POST", path, json={"documentName": "example"}, headers=headers)
        assert user.headers["Access-Control-Allow-Origin"] == FRONT
        assert user.headers["Access-Control-Allow-Credentials"] == "true"


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
    user: Poster, method: str, path: str, status: int
) -> None:
    assert (await user.ask(method, path))[0] == status
    assert OUR_HEADERS.items() <= dict(user.headers).items()
    assert "frame-ancestors 'none'" in user.headers["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in user.headers
