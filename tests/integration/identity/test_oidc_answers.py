"""Sign-ins at a provider that changes its keys, answers with anything but tokens, or hangs."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession

from service.errors import ProviderUnavailableError
from service.identity.oidc_provider import OidcProvider
from tests.support.forged_provider import CLIENT_ID, ForgedProvider, rsa_key
from tests.support.oidc_browser import Browser, refused


class TestTheKeys:
    async def test_a_new_key_of_the_provider_is_found(self, browser, provider):
        await browser.finish(provider, await browser.begin())
        provider.rotate()
        answer = await browser.finish(provider, await browser.begin())
        assert answer.status == 302

    async def test_a_key_that_keeps_its_name_is_found(self, browser, provider):
        await browser.finish(provider, await browser.begin())
        provider.key = provider.published = rsa_key("first", 1)
        answer = await browser.finish(provider, await browser.begin())
        assert answer.status == 302

    async def test_unknown_keys_do_not_make_us_ask_again_and_again(self, browser, provider):
        provider.key = rsa_key("unpublished")
        for _ in range(5):
            await refused(browser, await browser.finish(provider, await browser.begin()))
        assert provider.requests.count("/jwks") == 2
        assert provider.requests.count("/.well-known/openid-configuration") == 1

    @pytest.mark.parametrize(
        "odd",
        [
            {"kty": "RSA", "n": "AQAB"},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
            {"kty": "EC", "crv": "unknown", "x": "AA", "y": "AA"},
            {"kty": "OKP", "crv": "Ed25519", "x": 7},
        ],
        ids=str,
    )
    async def test_a_key_that_can_not_be_read_does_not_spoil_the_others(
        self, browser, provider, odd
    ):
        provider.odd_keys = [odd]
        answer = await browser.finish(provider, await browser.begin())
        assert answer.status == 302


class TestTheProvider:
    @pytest.mark.parametrize(
        ("status", "body", "code"),
        [
            (500, None, "provider_unavailable"),
            (502, b"<html>", "provider_unavailable"),
            (429, None, "provider_unavailable"),
            (302, None, "provider_unavailable"),
            (401, None, "provider_unavailable"),
            (200, b"", "provider_unavailable"),
            (200, b"<html>", "provider_unavailable"),
            (200, b"[]", "provider_unavailable"),
            (200, b"{}", "provider_unavailable"),
            (200, b'{"id_token": 7}', "provider_unavailable"),
            (200, b"[" * 100_000, "provider_unavailable"),
            (200, b'{"id_token":"x"}' + b" " * 1_100_000, "provider_unavailable"),
            (400, b'{"error":"invalid_grant"}', "sign_in_failed"),
        ],
    )
    async def test_an_answer_instead_of_tokens_is_told_apart(
        self, browser, provider, status, body, code
    ):
        provider.token_status, provider.token_body = status, body
        await refused(browser, await browser.finish(provider, await browser.begin()), code)

    async def test_a_code_follows_no_redirection(self, browser, provider):
        provider.token_status, provider.token_location = 307, "/elsewhere"
        answer = await browser.finish(provider, await browser.begin())
        await refused(browser, answer, "provider_unavailable")
        assert "/elsewhere" not in provider.requests

    @pytest.mark.parametrize(
        "metadata",
        [
            {"issuer": "https://evil.example"},
            {"issuer": 7},
            {"token_endpoint": None},
            {"jwks_uri": "file:///etc/passwd"},
            {"token_endpoint": "ftp://127.0.0.1/token"},
            {"authorization_endpoint": "javascript:alert(1)"},
        ],
        ids=str,
    )
    async def test_odd_metadata_begin_nothing(self, browser, provider, metadata):
        provider.metadata = metadata
        await refused(browser, await browser.get("/auth/login"), "provider_unavailable")

    async def test_no_signature_algorithm_but_ours_is_taken(self, browser, provider):
        provider.metadata = {"id_token_signing_alg_values_supported": ["none", "HS256"]}
        answer = await browser.finish(provider, await browser.begin())
        await refused(browser, answer, "provider_unavailable")

    async def test_a_provider_that_is_away_is_a_clear_answer(self, start):
        async with ForgedProvider() as gone:
            issuer = gone.issuer
        browser = Browser(await start(issuer))
        await refused(browser, await browser.get("/auth/login"), "provider_unavailable")
        await browser.http.close()

    async def test_a_provider_that_hangs_is_a_clear_answer(self):
        async with ForgedProvider() as provider, ClientSession() as http:
            provider.hangs = True
            asking = OidcProvider(provider.issuer, CLIENT_ID, None, http, timeout_seconds=0.1)
            with pytest.raises(ProviderUnavailableError):
                await asking.metadata()

    async def test_a_wrong_client_secret_is_our_fault_not_the_users(self, start, provider):
        browser = Browser(await start(provider.issuer, "wrong"))
        answer = await browser.finish(provider, await browser.begin())
        await refused(browser, answer, "provider_unavailable")
        await browser.http.close()
