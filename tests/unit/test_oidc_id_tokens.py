"""Which ID tokens of a provider name a user, and whose e-mail counts."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from service.errors import ProviderUnavailableError, SignInFailedError
from service.identity.issuers.oidc_provider import Metadata, Tokens
from service.identity.user import User
from tests.support.oidc_room import (
    ADA,
    EDWARDS,
    ISSUER,
    KEY,
    METADATA,
    NAMED_ANEW,
    NOW,
    RENEWED,
    Provider,
    finished,
    made,
    with_token,
)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.mark.parametrize(
    "changes",
    [
        *({name: ...} for name in ("iss", "aud", "sub", "nonce", "iat", "exp")),
        *({name: "other"} for name in ("iss", "aud", "nonce")),
        {"aud": []},
        {"aud": ["other"]},
        {"aud": ["client", "other"]},
        {"azp": "other"},
        {"aud": ["client", "other"], "azp": "other"},
        {"exp": NOW - 60},
        {"exp": "tomorrow"},
        {"iat": NOW + 61},
        {"nbf": NOW + 61},
        {"sub": ""},
    ],
)
async def test_a_claim_that_does_not_fit_is_refused(
    provider: Provider, changes: dict[str, Any]
) -> None:
    with pytest.raises(SignInFailedError):
        await with_token(provider, made(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["client"]},
        {"aud": ["client"], "azp": "client"},
        {"aud": ["client", "other"], "azp": "client"},
        {"azp": "client"},
        {"exp": NOW - 59},
        {"iat": NOW + 60},
        {"nbf": NOW + 60},
    ],
)
async def test_what_fits_is_taken(provider: Provider, changes: dict[str, Any]) -> None:
    assert await with_token(provider, made(**changes)) == ADA


async def test_an_id_that_nobody_could_have_is_refused(provider: Provider) -> None:
    with pytest.raises(SignInFailedError, match="did not say who you are"):
        await with_token(provider, made(sub="x" * 256))


@pytest.mark.filterwarnings("ignore:EdDSA")
async def test_only_signatures_by_public_keys_are_accepted(provider: Provider) -> None:
    assert await with_token(provider, made(EDWARDS, "EdDSA")) == ADA
    good = made()
    head, claims, _ = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for bad in (
        f"{head}.{claims}.",
        f"{none}.{claims}.",
        good[:-4] + "AAAA",
        "",
        "a.b.c",
        "\u00e9",
    ):
        with pytest.raises(SignInFailedError):
            await with_token(provider, bad)


async def test_a_signature_that_the_provider_does_not_announce_is_refused(
    provider: Provider,
) -> None:
    provider.said = Metadata(
        *(ISSUER, METADATA.authorization_endpoint, METADATA.token_endpoint, METADATA.jwks_uri),
        id_token_signing_alg_values_supported=("RS256",),
    )
    with pytest.raises(SignInFailedError):
        await finished(provider)
    provider.said = Metadata(
        *(ISSUER, METADATA.authorization_endpoint, METADATA.token_endpoint, METADATA.jwks_uri),
        id_token_signing_alg_values_supported=("HS256", "none"),
    )
    with pytest.raises(ProviderUnavailableError, match="no signature that is accepted"):
        await finished(provider)


@pytest.mark.parametrize(("size", "looks"), [(64 * 1024, 1), (64 * 1024 + 1, 0)])
async def test_a_token_has_at_most_64_ki_characters(
    provider: Provider, size: int, looks: int
) -> None:
    with pytest.raises(SignInFailedError):
        await with_token(provider, "x" * size)
    assert provider.looks == looks


async def test_a_token_of_nobody_is_refused_before_the_userinfo_counts(provider: Provider) -> None:
    provider.who = {"sub": "ada", "email": "info@example.com"}
    with pytest.raises(SignInFailedError):
        await with_token(provider, made(sub=..., email=...))
    assert provider.asked[1:] == []


@pytest.mark.parametrize("key", [RENEWED, NAMED_ANEW])
async def test_a_key_that_is_not_known_is_looked_for_once(provider: Provider, key: Any) -> None:
    provider.newer = [key]
    assert await with_token(provider, made(key)) == ADA
    assert provider.asked[1:] == [("newer keys",)]
    for newer in (None, [KEY]):
        provider.newer = newer
        with pytest.raises(SignInFailedError):
            await finished(provider)


async def test_a_userinfo_says_the_email_that_the_token_does_not(provider: Provider) -> None:
    provider.who = {"sub": "ada", "email": "info@example.com", "email_verified": True, "name": "A"}
    found = await with_token(provider, made(email=..., email_verified=..., name="Ada"))
    assert found == User("elsewhere", "ada", "info@example.com", "Ada", email_verified=True)
    assert provider.asked[1:] == [("userinfo", "access")]


@pytest.mark.parametrize(("token", "info"), [(True, False), (False, True), (True, ...)])
async def test_an_email_and_its_verification_come_from_the_same_answer(
    provider: Provider, token: object, info: object
) -> None:
    provider.who = {"sub": "ada", "email": "info@example.com"}
    if info is not ...:
        provider.who["email_verified"] = info
    found = await with_token(provider, made(email=..., email_verified=token))
    assert (found.email, found.email_verified) == ("info@example.com", info is True)


async def test_without_a_userinfo_there_is_no_email(provider: Provider) -> None:
    token = made(email=..., email_verified=True)
    assert await with_token(provider, token) == User("elsewhere", "ada")
    provider.tokens, provider.asked = Tokens(token), []
    expected = User("elsewhere", "ada", email_verified=True)  # of no address
    assert await finished(provider) == expected
    assert provider.asked[1:] == []


@pytest.mark.parametrize("who", [{"sub": "bob"}, {"email": "info@example.com"}])
async def test_a_userinfo_of_somebody_else_is_refused(
    provider: Provider, who: dict[str, str]
) -> None:
    provider.who = who
    with pytest.raises(SignInFailedError):
        await with_token(provider, made(email=...))
