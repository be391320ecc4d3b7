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
        self, user: Poster, method: str, path: str, headers: dict[str, str]
    ) -> None:
        await user.sign_in("kim")
        status, body = await user.ask(method, path, json={}, headers=headers)
        assert (status, body["code"]) == (403, "cross_site_request")
        assert (await user.ask("GET", "/auth/session"))[1]["user"]["id"] == "kim"

    async def test_the_session_is_asked_for_first(self, user: Poster) -> None:
        status, body = await user.ask("POST", "/api/route", json={}, headers=EVIL)
        assert (status, body["code"]) == (401, "session_required")

    async def test_an_allowed_origin_posts_and_reads(self, user: Poster) -> None:
        await user.sign_in("ada")
        status, _ = await user.ask(
            "OPTIONS",
            "/api/route",
            headers={"Origin": FRONT, "Access-Control-Request-Method": "POST"},
        )
        assert status == 204
        assert user.headers["Access-Control-Allow-Origin"] == FRONT
        for path in ("/api/route", "/api/nothing"):
            await user.ask(
                "POST",
                path,
                json={"documentName": "example"},
                headers={"Origin": FRONT, "Sec-Fetch-Site": "same-site"},
            )
            assert user.headers["Access-Control-Allow-Origin"] == FRONT
            assert user.headers["Access-Control-Allow-Credentials"] == "true"

    async def test_a_preflight_of_another_origin_is_refused(self, user: Poster) -> None:
        status, body = await user.ask(
            "OPTIONS", "/api/route", headers={**EVIL, "Access-Control-Request-Method": "POST"}
        )
        assert (status, body["code"]) == (403, "cross_site_request")
        assert "Access-Control-Allow-Origin" not in user.headers


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
