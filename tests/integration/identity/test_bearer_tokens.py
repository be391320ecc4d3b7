"""Bearer tokens of an issuer that publishes its keys over HTTP."""

from __future__ import annotations

import time
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from inngest_outbox.bootstrap.service import run_service
from inngest_outbox.config.settings import Settings

AUDIENCE = "outbox"


class Issuer:
    """Publishes `keys`."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.away = False
        self.url = ""
        self.published_at = "/keys"

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
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}{self.published_at}"})

    async def _keys(self, request: web.Request) -> web.Response:
        if self.away:
            raise web.HTTPBadGateway
        keys = KeySet(self.keys).as_dict(private=False)["keys"]
        return web.json_response({"keys": keys})


@pytest.fixture
async def issuer(aiohttp_server):
    issuer = Issuer()
    app = web.Application()
    app.add_routes(issuer.routes())
    server = await aiohttp_server(app)
    issuer.url = str(server.make_url("")).rstrip("/")
    return issuer


RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})


async def test_a_service_knows_the_user_of_a_token(issuer, aiohttp_client, tmp_path):
    issuer.keys = [RSA]
    environment = {
        "OUTBOX_URL": f"sqlite:///{tmp_path / 'outbox.db'}",
        "INNGEST_DEV": "http://127.0.0.1:9",
        "JWT_ISSUER": issuer.url,
        "JWT_AUDIENCE": AUDIENCE,
        "JWT_ID_CLAIM": "employee",
        "USER_IDS_SHARED": "true",
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
        await client.put("/api/settings", json={"a": 1}, headers=bearer)
        issuer.away = True
        unknown = {"Authorization": f"Bearer {issuer.token(EC, 'ES256')}"}
        assert (await client.get("/api/events", headers=unknown)).status == 401
        who = await (await client.get("/auth/session", headers=bearer)).json()
        await client.post("/auth/dev-login", json={"email": "ada@example.com", "id": "e-7"})
        assert (await (await client.get("/api/settings")).json())["a"] == 1
    assert who["user"]["id"] == "e-7"


async def test_the_keys_of_an_issuer_may_be_elsewhere_and_a_slash_makes_no_other_user(
    issuer, aiohttp_client, tmp_path
):
    issuer.keys, issuer.published_at = [RSA], "/nowhere"
    environment = {
        "OUTBOX_URL": f"sqlite:///{tmp_path / 'outbox.db'}",
        "INNGEST_DEV": "http://127.0.0.1:9",
        "JWT_ISSUER": f"{issuer.url}/",
        "JWT_JWKS_URL": f"{issuer.url}/keys",
    }
    async with run_service(Settings.load(environment)) as service:
        client = await aiohttp_client(service.app)
        token = issuer.token(RSA, "RS256", iss=f"{issuer.url}/")
        bearer = {"Authorization": f"Bearer {token}"}
        await client.put("/api/settings", json={"a": 1}, headers=bearer)
        stored = await service.outbox.scopes.load_scope("user", f"{issuer.url} u-1")
    assert stored == {"a": 1}
