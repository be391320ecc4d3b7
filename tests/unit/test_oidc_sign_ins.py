"""A sign-in at a provider: what the browser is sent with, and which answers sign somebody in."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from service.errors import ProviderUnavailableError, SignInFailedError
from service.identity.issuers.oidc_provider import Metadata
from tests.support.oidc_room import ADA, ATTEMPT, ISSUER, METADATA, Provider, finished, sign_in
from tests.support.virtual_time import in_virtual_time, now


@pytest.fixture
def provider() -> Provider:
    return Provider()


async def test_the_browser_is_sent_with_the_secrets_of_its_attempt(provider: Provider) -> None:
    url = urlsplit(await sign_in(provider).begin(ATTEMPT))
    assert url._replace(query="").geturl() == METADATA.authorization_endpoint
    digest = hashlib.sha256(ATTEMPT.code_verifier.encode()).digest()
    assert dict(parse_qsl(url.query)) == {
        "response_type": "code",
        "client_id": "client",
        "redirect_uri": ATTEMPT.redirect_uri,
        "scope": "openid email profile",
        "state": "state",
        "nonce": "nonce",
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }


async def test_an_honest_answer_names_the_user(provider: Provider) -> None:
    assert await finished(provider) == ADA
    assert provider.asked == [("exchange", "code", ATTEMPT.code_verifier, ATTEMPT.redirect_uri)]
    assert await finished(provider, iss=ISSUER) == ADA


@pytest.mark.parametrize("state", ["other", "", "\u00e9", "\ud800", "state ", ...])
async def test_an_answer_to_another_attempt_is_refused(provider: Provider, state: Any) -> None:
    with pytest.raises(SignInFailedError, match="not started in this browser"):
        await finished(provider, state=state)
    assert provider.asked == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"iss": "https://another.example"}, "did not succeed"),
        ({"error": "access_denied"}, "did not sign you in"),
        ({"error": "access_denied", "code": ...}, "did not sign you in"),
        ({"code": ...}, "did not sign you in"),
        ({"code": ""}, "did not sign you in"),
    ],
)
async def test_an_answer_that_signs_nobody_in_is_refused(
    provider: Provider, answer: dict[str, Any], words: str
) -> None:
    with pytest.raises(SignInFailedError, match=words):
        await finished(provider, **answer)
    assert provider.asked == []


async def test_a_provider_that_promises_its_name_must_say_it(provider: Provider) -> None:
    provider.said = Metadata(
        *(ISSUER, METADATA.authorization_endpoint, METADATA.token_endpoint, METADATA.jwks_uri),
        id_token_signing_alg_values_supported=("ES256",),
        authorization_response_iss_parameter_supported=True,
    )
    assert await finished(provider, iss=ISSUER) == ADA
    with pytest.raises(SignInFailedError):
        await finished(provider)


def test_each_step_has_ten_seconds_or_as_many_as_it_is_given() -> None:
    @in_virtual_time
    async def steps() -> None:
        provider = Provider()
        provider.hangs = True
        for options, ends in (({}, 10.0), ({"answer_seconds": 3.0}, 13.0)):
            with pytest.raises(ProviderUnavailableError):
                await sign_in(provider, **options).begin(ATTEMPT)
            assert now() == ends
        with pytest.raises(ProviderUnavailableError):
            await finished(provider)
        assert now() == 23.0

    steps()
