"""Failures as pages, for a person in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.bootstrap.service import run_service
from service.config.settings import Settings
from service.web.server.security_headers import page_policy

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    outbox = f"sqlite:///{tmp_path / 'outbox.db'}"
    return {"OUTBOX_URL": outbox, "INNGEST_DEV": "http://127.0.0.1:9"}


async def page(aiohttp_client, environment, path, **headers):
    async with run_service(Settings.load(environment)) as service:
        client = await aiohttp_client(service.app)
        answer = await client.get(path, headers=BROWSER | headers)
        return answer, await answer.text()


async def test_a_page_that_needs_a_sign_in_leads_to_it_and_back(aiohttp_client, environment):
    answer, text = await page(aiohttp_client, environment, "/outbox")
    assert (answer.status, answer.content_type) == (401, "text/html")
    assert 'href="/auth/dev-login?returnTo=/outbox"' in text


async def test_with_a_provider_the_sign_in_is_the_providers(aiohttp_client, environment):
    environment |= {"OIDC_ISSUER": "https://identity.example.com", "OIDC_CLIENT_ID": "outbox"}
    _, text = await page(aiohttp_client, environment, "/outbox")
    assert 'href="/auth/login?returnTo=/outbox"' in text


async def test_a_sign_in_without_a_provider_says_what_is_missing(aiohttp_client, environment):
    answer, text = await page(aiohttp_client, environment, "/auth/login")
    assert answer.status == 404
    assert "OIDC_ISSUER is not set" in text


async def test_a_provider_that_is_away_is_asked_again_later(aiohttp_client, environment):
    environment |= {"OIDC_ISSUER": "http://127.0.0.1:9", "OIDC_CLIENT_ID": "outbox"}
    answer, text = await page(aiohttp_client, environment, "/auth/login")
    assert (answer.status, answer.headers["Vary"]) == (503, "Accept")
    assert int(answer.headers["Retry-After"]) > 0
    assert "Open this address again in a moment." in text
    assert 'href="/auth/login?returnTo=/docs"' in text


async def test_a_page_that_can_not_be_made_now_is_asked_for_again_later(
    aiohttp_client, environment
):
    environment["NEXTAUTH_URL"] = "http://127.0.0.1:9"
    session = "next-auth.session-token=0b0f5a1e-8d6c-4f5f-9a52-2f5d3c1a7b90"
    answer, text = await page(aiohttp_client, environment, "/outbox", Cookie=session)
    assert answer.status == 503
    assert "Open this address again in a moment." in text
    assert "Sign in" not in text


async def test_the_way_back_is_the_address_as_it_was(aiohttp_client, environment):
    _, text = await page(aiohttp_client, environment, "/outbox/events/a%26b%3Fc")
    assert 'href="/auth/dev-login?returnTo=/outbox/events/a%26b%3Fc"' in text


async def test_an_unknown_address_leads_to_the_description(aiohttp_client, environment):
    answer, text = await page(aiohttp_client, environment, "/no/such/<page>")
    assert answer.status == 404
    assert 'href="/docs"' in text
    assert "<page>" not in text
    assert answer.headers["X-Request-Id"] in text


async def test_a_wrong_method_still_names_the_right_ones(aiohttp_client, environment):
    answer, _ = await page(aiohttp_client, environment, "/api/route")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_a_program_gets_json(aiohttp_client, environment):
    answer, text = await page(aiohttp_client, environment, "/outbox", Accept="*/*")
    assert answer.content_type == "application/json"
    assert '"session_required"' in text


async def test_the_start_page_is_for_development(aiohttp_client, environment):
    answer, text = await page(aiohttp_client, environment, "/")
    assert answer.status == 200
    assert 'action="/auth/dev-login"' in text
    environment |= {"OPERATOR_EMAILS": "kim@example.com"}
    async with run_service(Settings.load(environment)) as service:
        client = await aiohttp_client(service.app)
        assert 'value="kim@example.com"' in await (await client.get("/")).text()
        for email, is_operator in (("ada@example.com", False), ("kim@example.com", True)):
            await client.post("/auth/dev-login", json={"email": email})
            text = await (await client.get("/")).text()
            assert (f"<b>{email}</b>, an operator" in text) is is_operator
        assert "reports/2026.pdf" in text
    environment |= {"APP_ENV": "production", "SESSION_SECRET": "s" * 32}
    answer, _ = await page(aiohttp_client, environment, "/")
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
