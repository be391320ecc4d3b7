"""Sign-ins at a provider that says what a test wants, without a socket."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any, cast

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey

from service.identity.issuers.oidc import OidcSignIn
from service.identity.issuers.oidc_provider import Metadata, OidcProvider, Tokens
from service.identity.issuers.sign_in_attempt import SignInAttempt
from service.identity.user import User

NOW = 1_800_000_000
ISSUER = "https://issuer.example"
METADATA = Metadata(
    ISSUER,
    f"{ISSUER}/auth",
    f"{ISSUER}/token",
    f"{ISSUER}/jwks",
    id_token_signing_alg_values_supported=("ES256", "EdDSA", "HS256", "none"),
)
KEY = ECKey.generate_key("P-256", {"kid": "ec"})
RENEWED = ECKey.generate_key("P-256", {"kid": "ec"})
NAMED_ANEW = ECKey.generate_key("P-256", {"kid": "new"})
EDWARDS = OKPKey.generate_key("Ed25519", {"kid": "okp"})
ATTEMPT = SignInAttempt("state", "nonce", "verifier" * 6, "https://own.example/cb", "/")
ANSWER = {"state": "state", "code": "code"}
CLAIMS = {
    "iss": ISSUER,
    "aud": "client",
    "sub": "ada",
    "nonce": "nonce",
    "iat": NOW,
    "exp": NOW + 300,
    "email": "ada@example.com",
    "email_verified": True,
}
ADA = User("elsewhere", "ada", "ada@example.com", email_verified=True)


class Provider:
    """Says what a test wants; `asked` is what it was asked."""

    client_id = "client"

    def __init__(self) -> None:
        self.said = METADATA
        self.known: list[Any] = [KEY, EDWARDS]
        self.newer: list[Any] | None = None
        self.tokens = Tokens(made(), "access")
        self.who: dict[str, Any] = {}
        self.asked: list[tuple[str, ...]] = []
        self.hangs = False
        self.looks = 0  # at its keys

    async def metadata(self) -> Metadata:
        if self.hangs:
            await asyncio.sleep(60.0)
        return self.said

    async def keys(self) -> KeySet:
        self.looks += 1
        return KeySet(self.known)

    async def newer_keys(self) -> KeySet | None:
        self.asked.append(("newer keys",))
        return KeySet(self.newer) if self.newer else None

    async def exchange(self, code: str, code_verifier: str, redirect_uri: str) -> Tokens:
        self.asked.append(("exchange", code, code_verifier, redirect_uri))
        return self.tokens

    async def userinfo(self, access_token: str) -> dict[str, Any]:
        self.asked.append(("userinfo", access_token))
        return self.who


def made(key: Any = KEY, algorithm: str = "ES256", **changes: Any) -> str:
    claims = {name: one for name, one in {**CLAIMS, **changes}.items() if one is not ...}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = {"alg": algorithm, "kid": key.kid}
        return jwt.encode(header, claims, key, algorithms=[algorithm])


def sign_in(provider: Provider, **options: float) -> OidcSignIn:
    return OidcSignIn(
        cast("OidcProvider", provider), user_issuer="elsewhere", clock=lambda: NOW + 0.9, **options
    )


async def finished(provider: Provider, **answer: Any) -> User:
    given = {name: one for name, one in {**ANSWER, **answer}.items() if one is not ...}
    return await sign_in(provider).finish(ATTEMPT, given)


async def with_token(provider: Provider, token: str) -> User:
    provider.tokens = Tokens(token, "access")
    return await finished(provider)
