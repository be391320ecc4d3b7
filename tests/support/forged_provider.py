"""An OpenID provider on a real socket that says whatever a test wants it to say."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID = "outbox-test"
CLIENT_SECRET = "outbox-test-secret"

Sign = Callable[[dict[str, Any], RSAKey], str]


@cache
def rsa_key(kid: str, which: int = 0) -> RSAKey:
    """One of several keys of the same name, made once: making one is slow."""
    return RSAKey.generate_key(2048, {"kid": kid})


def sign(claims: dict[str, Any], key: RSAKey, **header: str) -> str:
    return jwt.encode({"alg": "RS256", "kid": key.kid, **header}, claims, key)


class ForgedProvider:
    """`sign` makes the ID token from honest `claims`; `metadata` and `claims` overlay the rest.

    Codes are honest: single use, and bound to the PKCE challenge that came with them.
    """

    def __init__(self) -> None:
        self.key = self.published = rsa_key("first")
        self.sign: Sign = sign
        self.claims: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.hangs = False
        self.waiting = 0
        self.access_token: str | None = "access"
        self.odd_keys: list[dict[str, Any]] = [{"kty": "AKP", "kid": "from-the-future"}]
        self.token_status = 200
        self.token_location = ""
        self.token_body: bytes | None = None
        self.codes: dict[str, dict[str, str]] = {}
        self.requests: list[str] = []
        # Handlers of a TestServer end when their client goes: `waiting` counts who still waits.
        self._server = TestServer(self._app())

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def issuer(self) -> str:
        return str(self._server.make_url("/")).rstrip("/")

    def authorize(self, asked: dict[str, str]) -> str:
        """What the browser would bring back from a sign-in: a code for what was asked."""
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return code

    def rotate(self) -> None:
        self.key = self.published = rsa_key("second")

    def _app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._discovery),
                web.get("/jwks", self._jwks),
                web.post("/token", self._token),
                web.post("/elsewhere", self._token),
                web.get("/userinfo", self._userinfo),
            ]
        )
        return app

    async def _discovery(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        await self._hang()
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/auth",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
                **self.metadata,
            }
        )

    async def _jwks(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        public = self.published.as_dict(private=False)
        return web.json_response({"keys": [*self.odd_keys, {**public, "use": "sig"}]})

    async def _hang(self) -> None:
        if self.hangs:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1

    async def _userinfo(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer access":
            return web.json_response({}, status=401)
        return web.json_response(self.userinfo)

    async def _token(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        if self.token_body is not None or self.token_status != 200:
            headers = {"Location": self.token_location} if self.token_location else {}
            body = self.token_body or b""
            return web.Response(body=body, status=self.token_status, headers=headers)
        await self._hang()
        form = await request.post()
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {basic}":
            return web.json_response({"error": "invalid_client"}, status=401)
        asked = self.codes.pop(str(form["code"]), None)
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or challenge != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": "ada",
            "email": "ada@example.com",
            "email_verified": True,
            "nonce": asked["nonce"],
            "iat": now,
            "exp": now + 300,
            **self.claims,
        }
        honest = {name: value for name, value in claims.items() if value is not ...}
        token = self.sign(honest, self.key)
        return web.json_response(
            {"id_token": token, "access_token": self.access_token, "token_type": "Bearer"}
        )
