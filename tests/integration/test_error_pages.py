"""Failures as pages, for a person in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import ClientResponse

from service.web.server.security_headers import page_policy
from tests.support.service_client import service_client

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PROVIDER = {"OIDC_CLIENT_ID": "outbox"}
PRODUCTION = {"APP_ENV": "production", "SESSION_SECRET": "s" * 32}
AGAIN = "Open this address again in a moment."
SESSION = {"Cookie": "next-auth.session-token=0b0f5a1e-8d6c-4f5f-9a52-2f5d3c1a7b90"}


async def page(
    folder: Path, path: str, headers: dict[str, str] | None = None, **environ: str
) -> tuple[ClientResponse, str]:
    async with service_client(folder, **environ) as (_, client):
        answer = await client.get(path, headers=BROWSER | (headers or {}))
        return answer, await answer.text()


@pytest.mark.parametrize(
    ("path", "environ", "status", "words"),
    [
        (
            "/outbox",
            {},
            401,
            ["<h1>Sign in</h1>", 'href="/auth/dev-login?returnTo=/outbox"', "401 session_required"],
        ),
        (
            "/outbox/events/a%26b%3Fc",
            {},
            401,
            ['href="/auth/dev-login?returnTo=/outbox/events/a%26b%3Fc"'],
        ),
        (
            "/outbox",
            {"OIDC_ISSUER": "https://identity.example.com", **PROVIDER},
            401,
            ['href="/auth/login?returnTo=/outbox"'],
        ),
        ("/auth/login", {}, 404, ["<h1>Nothing here</h1>", "OIDC_ISSUER is not set"]),
        (
            "/auth/callback?code=c&state=s",
            {"OIDC_ISSUER": "http://127.0.0.1:9", **PROVIDER},
            400,
            [
                "<h1>The sign-in failed</h1>",
                "This sign-in was not started in this browser. Start again.",
                'href="/auth/login?returnTo=/docs"',
            ],
        ),
        ("/outbox", PRODUCTION, 401, ["<p>Sign in at your front end, then open"]),
        (
            "/auth/login",
            {"OIDC_ISSUER": "http://127.0.0.1:9", **PROVIDER},
            503,
            ["<h1>This did not work</h1>", AGAIN, 'href="/auth/login?returnTo=/docs"'],
        ),
    ],
)
async def test_a_page_says_what_is_missing_and_leads_on(
    tmp_path: Path, path: str, environ: dict[str, str], status: int, words: list[str]
) -> None:
    answer, text = await page(tmp_path, path, **environ)
    assert (answer.status, answer.content_type) == (status, "text/html")
    assert [one for one in words if one not in text] == []
    assert answer.headers["Vary"] == "Accept"
    assert (int(answer.headers.get("Retry-After", 0)) > 0) is (status == 503)


async def test_a_page_that_can_not_be_made_now_is_asked_for_again_later(tmp_path: Path) -> None:
    answer, text = await page(tmp_path, "/outbox", SESSION, NEXTAUTH_URL="http://127.0.0.1:9")
    assert answer.status == 503
    assert AGAIN in text
    assert "Sign in" not in text


async def test_a_form_without_a_session_leads_back_to_a_page(tmp_path: Path) -> None:
    async with service_client(tmp_path) as (_, client):
        answer = await client.post("/outbox/discard", headers=BROWSER)
        text = await answer.text()
    assert answer.status == 401
    assert 'href="/auth/dev-login?returnTo=/outbox"' in text


async def test_an_unknown_address_leads_to_the_description(tmp_path: Path) -> None:
    answer, text = await page(tmp_path, "/no/such/<page>")
    assert answer.status == 404
    assert 'href="/docs"' in text
    assert "<page>" not in text
    assert answer.headers["X-Request-Id"] in text


async def test_a_wrong_method_still_names_the_right_ones(tmp_path: Path) -> None:
    answer, _ = await page(tmp_path, "/api/route")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_a_program_gets_json(tmp_path: Path) -> None:
    answer, text = await page(tmp_path, "/outbox", {"Accept": "*/*"})
    assert answer.content_type == "application/json"
    assert '"session_required"' in text


async def test_the_start_page_is_for_development(tmp_path: Path) -> None:
    answer, text = await page(tmp_path, "/")
    assert answer.status == 200
    assert 'action="/auth/dev-login">\n<input type="hidden" name="returnTo" value="/">' in text
    _, text = await page(tmp_path, "/", OIDC_ISSUER="https://identity.example.com", **PROVIDER)
    assert '<a href="/auth/login?returnTo=/">Sign in</a>' in text
    operators = {"OPERATOR_EMAILS": "kim@example.com"}
    async with service_client(tmp_path, **operators) as (_, client):
        assert 'value="kim@example.com"' in await (await client.get("/")).text()
        for email, is_operator in (("ada@example.com", False), ("kim@example.com", True)):
            await client.post("/auth/dev-login", json={"email": email})
            text = await (await client.get("/")).text()
            assert (f"<b>{email}</b>, an operator" in text) is is_operator
            refused = await (await client.get("/outbox", headers=BROWSER)).text()
            words = (
                "<h1>For operators</h1>",
                "OPERATOR_EMAILS names them",
                "login?returnTo=/outbox",
            )
            assert [one in refused for one in words] == [not is_operator] * 3
        assert "reports/2026.pdf" in text
    answer, _ = await page(tmp_path, "/", **operators, **PRODUCTION)
    assert answer.status == 404


def test_the_policy_of_a_page_names_its_scripts_by_digest():
    assert "'sha256-CImjRDTlhukYQ2AnxOi0wzgPhGQ3Mb3rVwJK24dFz1M='" in page_policy("1;")
    least = "style-src 'none'; connect-src 'self'; img-src 'self' data:; base-uri 'none'"
    ends = "frame-ancestors 'none'"
    assert page_policy() == (
        f"default-src 'none'; script-src 'none'; {least}; form-action 'none'; {ends}"
    )
    assert page_policy(files=True, forms=True) == (
        f"default-src 'none'; script-src 'self'; {least.replace('none', 'self', 1)}; "
        f"form-action 'self'; {ends}"
    )
