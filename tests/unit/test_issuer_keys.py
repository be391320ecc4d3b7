"""The keys of an issuer: where they are read, which are usable, and when they are read again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import aiohttp
import pytest
import structlog
from joserfc.jwk import ECKey, OctKey, OKPKey

from inngest_outbox.errors import ProviderUnavailableError
from inngest_outbox.identity.jwks import Jwks, import_keys
from tests.support.clock import Clock
from tests.unit.test_provider_answers import Web

ISSUER = "https://issuer.example"
OPENID = f"{ISSUER}/.well-known/openid-configuration"
OAUTH = f"{ISSUER}/.well-known/oauth-authorization-server"
KEYS = f"{ISSUER}/keys"
OLD, NEW = (ECKey.generate_key("P-256", {"kid": kid}).as_dict(private=False) for kid in ("o", "n"))
EDWARDS = OKPKey.generate_key("Ed25519", {"kid": "ed"}).as_dict(private=False)


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web({OPENID: {"jwks_uri": KEYS}, KEYS: {"keys": [OLD]}})
    yield made
    for _, _, options in made.asked:
        assert options["headers"] == {"Accept": "application/json"}


def jwks(web: Web, clock: Clock, issuer: str = ISSUER, jwks_url: str | None = None) -> Jwks:
    return Jwks(issuer, cast("aiohttp.ClientSession", web), jwks_url=jwks_url, clock=clock)


async def ids(keys: Jwks, kid: str | None) -> list[str | None]:
    return [key.kid for key in (await keys.keys(kid)).keys]


@pytest.mark.parametrize("issuer", [ISSUER, f"{ISSUER}/"])
async def test_they_are_where_the_issuer_s_metadata_says(
    web: Web, clock: Clock, issuer: str
) -> None:
    assert await ids(jwks(web, clock, issuer), "o") == ["o"]
    assert web.urls == [OPENID, KEYS]


async def test_an_oauth_server_says_it_elsewhere_or_not_at_all(web: Web, clock: Clock) -> None:
    web.said[OAUTH] = web.said.pop(OPENID)
    assert await ids(jwks(web, clock), "o") == ["o"]
    assert web.urls == [OPENID, OAUTH, KEYS]
    del web.said[OAUTH]
    with pytest.raises(ProviderUnavailableError, match="does not say where its keys are"):
        await jwks(web, clock).keys("o")
    assert web.urls[3:] == [OPENID, OAUTH]


async def test_an_address_that_is_configured_is_asked_at_once_and_again_after_an_hour(
    web: Web, clock: Clock
) -> None:
    keys = jwks(web, clock, jwks_url=KEYS)
    for later, read in ((0, 1), (3600, 1), (3600.1, 2)):
        clock.now = 1000.0 + later
        for kid in ("o", None):
            assert await ids(keys, kid) == ["o"]
        assert web.urls == [KEYS] * read


@pytest.mark.parametrize(
    ("issuer", "url", "is_read"),
    [
        (ISSUER, "http://issuer.example/keys", False),
        (ISSUER, "ftp://issuer.example/keys", False),
        (ISSUER, "https://[issuer.example/keys", False),
        ("http://127.0.0.1:9", "http://127.0.0.1:9/keys", True),
        ("http://127.0.0.1:9", KEYS, True),
    ],
)
async def test_keys_are_read_no_less_securely_than_the_issuer_s_name(
    web: Web, clock: Clock, issuer: str, url: str, *, is_read: bool
) -> None:
    web.said[url] = {"keys": [OLD]}
    keys = jwks(web, clock, issuer, url)
    if is_read:
        assert await ids(keys, "o") == ["o"]
        return
    with pytest.raises(ProviderUnavailableError, match="insecurely"):
        await keys.keys("o")
    assert web.urls == []


@pytest.mark.parametrize("said", [None, [], {}, {"keys": 1}, {"keys": []}])
async def test_keys_that_are_none_are_unavailable(web: Web, clock: Clock, said: object) -> None:
    web.said[KEYS] = said
    with pytest.raises(ProviderUnavailableError):
        await jwks(web, clock).keys("o")


async def test_a_key_that_is_not_known_is_looked_for_every_ten_seconds(
    web: Web, clock: Clock
) -> None:
    keys = jwks(web, clock, jwks_url=KEYS)
    assert await ids(keys, "o") == ["o"]
    web.said[KEYS] = {"keys": [OLD, NEW]}
    for later, kid, found, read in (
        (10.0, "n", ["o"], 1),  # just read
        (10.1, "n", ["o", "n"], 2),
        (10.2, "n", ["o", "n"], 2),
        (30.0, "o", ["o", "n"], 2),
        (30.0, "other", ["o", "n"], 3),
    ):
        clock.now = 1000.0 + later
        assert await ids(keys, kid) == found
        assert len(web.urls) == read


async def test_after_a_renewal_that_failed_what_is_known_counts_for_ten_seconds(
    web: Web, clock: Clock
) -> None:
    keys = jwks(web, clock, jwks_url=KEYS)
    await keys.keys("o")
    clock.now = 1020.0
    web.said[KEYS] = None
    with pytest.raises(ProviderUnavailableError):
        await keys.keys("n")
    web.said[KEYS] = {"keys": [NEW]}
    clock.now = 1029.9
    for kid in ("n", "o"):
        assert await ids(keys, kid) == ["o"]
    assert len(web.urls) == 2
    clock.now = 1030.0
    assert await ids(keys, "n") == ["n"]


def kids(*published: dict[str, Any]) -> list[str | None]:
    return [key.kid for key in import_keys(published).keys]


def test_public_keys_for_signatures_are_usable() -> None:
    signing = {**NEW, "use": "sig"}
    encrypting = {**NEW, "use": "enc", "kid": "enc"}
    secret = OctKey.import_key(b"x" * 32, {"kid": "secret"}).as_dict()
    assert kids(OLD, signing, encrypting, secret, EDWARDS) == ["o", "n", "ed"]
    for one in (encrypting, secret, {}, {"kty": "new"}):
        with pytest.raises(ProviderUnavailableError, match="no usable keys"):
            import_keys([one])


@pytest.mark.parametrize(
    "odd",
    [
        {"kty": "EC", "crv": "P-256"},
        {"kty": "EC", "crv": "P-0", "x": "AA", "y": "AA"},
        {"kty": "RSA", "n": 1, "e": "AQAB"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
    ],
)
def test_a_key_that_makes_no_sense_is_logged_and_spoils_no_other(odd: dict[str, Any]) -> None:
    with structlog.testing.capture_logs() as lines:
        assert kids(odd, OLD) == ["o"]
    [line] = lines
    assert (line["event"], line["log_level"]) == ("issuer_key_unusable", "warning")
    assert line["reason"].isidentifier()
