"""Bearer tokens of an issuer that publishes its keys over HTTP."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from service.bootstrap.service import run_service
from service.config.settings import Settings
from service.errors import ProviderUnavailableError
from service.identity.bearer_tokens import BearerTokens
from service.identity.jwks import Jwks

AUDIENCE = "outbox"


class Issuer:
    """Publishes `keys`; counts how often it is asked for them."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.odd_keys: list[dict[str, object]] = []
        self.asked = 0
        self.away = False
        self.url = ""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/.well-known/openid-configuration", self._metadata),
            web.get("/keys", self._keys),
        ]

    def token(self, key: Any, algorithm: str, **changes: object) -> str:
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "u-1", "exp": time.time() + 60}
        header = {"alg": algorithm, "kid": key.kid}
        return jwt.encode(header, {**claims, **changes}, key, algorithms=[algorithm])

    async def _metadata(self, request: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.away:
            raise web.HTTPBadGateway
        keys = KeySet(self.keys).as_dict(private=False)["keys"]
        return web.json_response({"keys": [*self.odd_keys, *keys]})


@pytest.fixture
async def issuer(aiohttp_server):
    issuer = Issuer()
    app = web.Application()
    app.add_routes(issuer.routes())
    server = await aiohttp_server(app)
    issuer.url = str(server.make_url("")).rstrip("/")
    return issuer


@pytest.fixture
async def tokens(issuer):
    async with ClientSession() as http:
        yield BearerTokens(
            Jwks(issuer.url, http), issuer=issuer.url, audience=AUDIENCE, user_issuer="elsewhere"
        )


def request(token: str) -> web.Request:
    return make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {token}"})


def part(value: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
KEYS = [
    (RSA, "RS256"),
    (RSA, "PS512"),
    (ECKey.generate_key("P-256", {"kid": "ec"}), "ES256"),
    (OKPKey.generate_key("Ed25519", {"kid": "okp"}), "EdDSA"),
]


@pytest.mark.filterwarnings("ignore:EdDSA")
@pytest.mark.parametrize(("key", "algorithm"), KEYS)
async def test_a_token_of_the_issuer_names_its_user(issuer, tokens, key, algorithm):
    issuer.keys = [key]
    token = issuer.token(key, algorithm, email="ada@example.com", email_verified=True)
    user = await tokens.find(request(token))
    assert user.owner == "elsewhere u-1"
    assert (user.email, user.email_verified) == ("ada@example.com", True)


async def test_a_token_signed_with_the_public_key_as_a_secret_is_no_session(issuer, tokens):
    issuer.keys = [RSA]
    _, claims, _ = issuer.token(RSA, "RS256").split(".")
    signed = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{claims}"
    mac = hmac.digest(RSA.as_pem(private=False), signed.encode(), "sha256")
    forged = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    assert await tokens.find(request(forged)) is None


async def test_a_new_key_of_the_issuer_is_found(issuer, aiohttp_client):
    now = [0.0]
    async with ClientSession() as http:
        jwks = Jwks(issuer.url, http, clock=lambda: now[0])
        issuer.keys = [RSA]
        await jwks.keys("rsa")
        issuer.keys = [RSA, KEYS[2][0]]
        assert [key.kid for key in (await jwks.keys("ec")).keys] == ["rsa"]  # asked just now
        now[0] += 11
        assert [key.kid for key in (await jwks.keys("ec")).keys] == ["rsa", "ec"]
        assert issuer.asked == 2


async def test_a_key_that_can_not_be_read_does_not_spoil_the_others(issuer):
    async with ClientSession() as http:
        issuer.keys = [RSA]
        issuer.odd_keys = [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "odd"}]
        assert [key.kid for key in (await Jwks(issuer.url, http).keys("rsa")).keys] == ["rsa"]


async def test_an_issuer_that_is_away_is_not_asked_again_at_once(issuer):
    issuer.away = True
    async with ClientSession() as http:
        jwks = Jwks(issuer.url, http)
        asking = (jwks.keys("rsa") for _ in range(20))
        found = await asyncio.gather(*asking, return_exceptions=True)
        found += await asyncio.gather(jwks.keys("rsa"), return_exceptions=True)
    assert {type(one) for one in found} == {ProviderUnavailableError}
    assert issuer.asked <= 2


async def test_a_service_knows_the_user_of_a_token(issuer, aiohttp_client, tmp_path):
    issuer.keys = [RSA]
    environment = {
        "OUTBOX_URL": f"sqlite:///{tmp_path / 'outbox.db'}",
        "INNGEST_DEV": "http://127.0.0.1:9",
        "JWT_ISSUER": issuer.url,
        "JWT_AUDIENCE": AUDIENCE,
        "JWT_ID_CLAIM": "employee",
    }
    async with run_service(Settings.load(environment)) as service:
        client = await aiohttp_client(service.app)
        bearer, other = [
            {"Authorization": f"Bearer {issuer.token(RSA, 'RS256', employee='e-7', aud=audience)}"}
            for audience in (AUDIENCE, "another")
        ]
        assert (await client.get("/api/events")).status == 401
        assert (await client.get("/api/events", headers=other)).status == 401
        assert (await client.get("/api/events", headers=bearer)).status == 200
        issuer.away = True
        unknown = {"Authorization": f"Bearer {issuer.token(KEYS[2][0], 'ES256')}"}
        assert (await client.get("/api/events", headers=unknown)).status == 401
        who = await (await client.get("/auth/session", headers=bearer)).json()
    assert who["user"]["id"] == "e-7"
