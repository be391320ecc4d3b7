"""Sign-ins at a provider whose tokens lie, and at one that changes its keys."""

from __future__ import annotations

import base64
import hmac
import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from tests.support.forged_provider import CLIENT_ID, CLIENT_SECRET, rsa_key, sign
from tests.support.oidc_browser import Browser, refused


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned_part(header, claims) -> str:
    return ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))


def unsigned(claims, _key):
    return unsigned_part({"alg": "none"}, claims) + "."


def with_the_public_key_as_shared_secret(claims, key):
    signed = unsigned_part({"alg": "HS256", "kid": key.kid}, claims)
    digest = hmac.digest(key.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64url(digest)}"


def with_the_client_secret(claims, key):
    secret = OctKey.import_key(CLIENT_SECRET * 2)
    return jwt.encode({"alg": "HS256", "kid": key.kid}, claims, secret, algorithms=["HS256"])


def with_a_key_of_its_own(claims, key):
    return sign(claims, rsa_key(key.kid, 1))


def with_a_key_in_its_header(claims, key):
    own = rsa_key(key.kid, 1)
    return sign(claims, own, jwk=own.as_dict(private=False))


def with_another_kind_of_key(claims, key):
    own = ECKey.generate_key("P-256", {"kid": key.kid})
    return jwt.encode({"alg": "ES256", "kid": key.kid}, claims, own)


def with_a_changed_claim(claims, key):
    header, _, signature = sign(claims, key).split(".")
    payload = base64url(json.dumps({**claims, "sub": "root"}).encode())
    return f"{header}.{payload}.{signature}"


class TestTheToken:
    @pytest.mark.parametrize(
        "claims",
        [
            {"nonce": "wrong"},
            {"nonce": ""},
            {"nonce": ...},
            {"iss": "https://evil.example"},
            {"iss": ...},
            {"aud": "another-client"},
            {"aud": ["another-client"]},
            {"aud": []},
            {"aud": ...},
            {"aud": f"{CLIENT_ID}-2"},
            {"aud": [CLIENT_ID, "another-client"]},
            {"azp": "another-client"},
            {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"},
            {"exp": 1},
            {"exp": ...},
            {"exp": "2100"},
            {"exp": True},
            {"iat": 4_000_000_000, "exp": 4_000_000_300},
            {"iat": ...},
            {"nbf": 4_000_000_000},
            {"sub": ...},
            {"sub": ..., "email": ...},
            {"sub": ""},
            {"sub": 7},
            {"sub": "line\nbreak"},
            {"sub": "x" * 256},
        ],
        ids=str,
    )
    async def test_a_claim_that_does_not_fit_is_refused(self, browser, provider, claims):
        provider.claims = claims
        await refused(browser, await browser.finish(provider, await browser.begin()))

    @pytest.mark.parametrize(
        "claims",
        [
            {"aud": [CLIENT_ID]},
            {"azp": CLIENT_ID},
            {"aud": [CLIENT_ID, "another-client"], "azp": CLIENT_ID},
        ],
    )
    async def test_what_fits_is_taken(self, browser, provider, claims):
        provider.claims = claims
        await browser.finish(provider, await browser.begin())
        assert (await browser.user())["id"] == "ada"

    @pytest.mark.parametrize(("claim", "ahead"), [("exp", -1), ("iat", 1), ("nbf", 1)])
    async def test_clocks_may_differ_by_a_minute(self, browser, provider, claim, ahead):
        provider.claims = {claim: int(time.time()) + ahead * 90}
        await refused(browser, await browser.finish(provider, await browser.begin()))
        provider.claims = {claim: int(time.time()) + ahead * 30}
        await browser.finish(provider, await browser.begin())
        assert (await browser.user())["id"] == "ada"

    async def test_other_signatures_by_public_keys_are_taken(self, browser, provider):
        provider.key = provider.published = ECKey.generate_key("P-256", {"kid": "ec"})
        provider.sign = lambda claims, key: jwt.encode({"alg": "ES256", "kid": "ec"}, claims, key)
        await browser.finish(provider, await browser.begin())
        assert (await browser.user())["id"] == "ada"

    async def test_without_an_access_token_no_userinfo_counts(self, browser, provider):
        provider.claims, provider.access_token = {"email": ...}, None
        provider.userinfo = {"sub": "ada", "email": "ada@example.com"}
        await browser.finish(provider, await browser.begin())
        assert (await browser.user())["email"] is None

    @pytest.mark.parametrize(
        "forge",
        [
            unsigned,
            with_the_public_key_as_shared_secret,
            with_the_client_secret,
            with_a_key_of_its_own,
            with_a_key_in_its_header,
            with_another_kind_of_key,
            with_a_changed_claim,
            lambda claims, key: sign(claims, key)[:-2],
            lambda claims, key: sign(claims, key) + ".x",
            lambda _claims, _key: "",
            lambda _claims, _key: "...",
            lambda _claims, _key: "[" * 1000,
            lambda claims, key: sign({**claims, "more": "x" * 65_536}, key),
            lambda _claims, key: jwt.encode({"alg": "RS256", "kid": key.kid}, {}, key),
        ],
    )
    async def test_a_token_that_the_provider_did_not_sign_is_refused(
        self, browser, provider, forge
    ):
        provider.sign = forge
        await refused(browser, await browser.finish(provider, await browser.begin()))

    async def test_an_email_may_come_from_the_userinfo(self, browser, provider):
        provider.claims = {"email": ..., "email_verified": ..., "name": "Ada"}
        provider.userinfo = {"sub": "ada", "email": "ada@example.com", "name": "Countess"}
        await browser.finish(provider, await browser.begin())
        user = await browser.user()
        assert (user["email"], user["name"]) == ("ada@example.com", "Ada")

    @pytest.mark.parametrize(
        ("signed", "told", "verified"),
        [
            ({"email": ..., "email_verified": True}, {"email": "root@example.com"}, False),
            (
                {"email": ..., "email_verified": False},
                {"email": "a@b", "email_verified": True},
                True,
            ),
            ({"email_verified": ...}, {"email": "root@example.com", "email_verified": True}, False),
        ],
        ids=str,
    )
    async def test_an_email_and_its_verification_come_from_one_answer(
        self, browser, provider, signed, told, verified
    ):
        provider.claims, provider.userinfo = signed, {"sub": "ada", **told}
        await browser.finish(provider, await browser.begin())
        assert (await browser.user())["emailVerified"] is verified

    async def test_a_userinfo_of_somebody_else_is_refused(self, browser, provider):
        provider.claims = {"email": ...}
        for info in ({"sub": "eve", "email": "root@example.com"}, {"email": "root@example.com"}):
            provider.userinfo = info
            await refused(browser, await browser.finish(provider, await browser.begin()))


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


async def test_no_signature_algorithm_but_ours_is_taken(browser, provider):
    provider.metadata = {"id_token_signing_alg_values_supported": ["none", "HS256"]}
    answer = await browser.finish(provider, await browser.begin())
    await refused(browser, answer, "provider_unavailable")


async def test_a_wrong_client_secret_is_our_fault_not_the_users(start, provider):
    browser = Browser(await start(provider.issuer, "wrong"))
    answer = await browser.finish(provider, await browser.begin())
    await refused(browser, answer, "provider_unavailable")
    await browser.http.close()
