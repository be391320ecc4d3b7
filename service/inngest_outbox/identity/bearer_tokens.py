"""Users who sign in elsewhere and send a bearer token: a JWT of one issuer.

The invariant: a token counts only with a signature by one of the issuer's public keys, under an
asymmetric algorithm, for this service's audience, and before its end. Any other token counts
as no session and raises no error.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web
from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning

from inngest_outbox.identity.jwks import Jwks, signed_claims
from inngest_outbox.identity.sessions import RememberedUsers, bearer_token
from inngest_outbox.identity.user import FoundUser, User, seconds_of, user_from_claims

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
_ALGORITHMS += ["EdDSA", "Ed25519"]
_TOLERANCE_SECONDS = 15
_MAX_TOKEN_CHARS = 16 * 1024
_CACHED_SECONDS = 60.0
_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class _Header(msgspec.Struct, frozen=True, gc=False):
    alg: str
    kid: str | None = None


class BearerTokens:
    """Reads the tokens of `issuer`. `audience` None takes tokens for any audience.

    `user_issuer` is the issuer of the users' ids, `id_claim` the claim that is the id. A valid
    token is cached for a minute.
    """

    def __init__(
        self,
        jwks: Jwks,
        *,
        issuer: str,
        audience: str | None,
        user_issuer: str,
        id_claim: str = "sub",
        clock: Callable[[], float] = time.time,
    ) -> None:
        # joserfc warns about the older name of the algorithm that Better Auth signs with.
        warnings.filterwarnings("ignore", category=SecurityWarning, message="EdDSA")
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._user_issuer = user_issuer
        self._id_claim = id_claim
        self._clock = clock
        self._valid = RememberedUsers()

    async def find(self, request: web.Request) -> User | None:
        """The user of the request's bearer token, None without a valid one.

        Raises ProviderUnavailableError while the issuer's keys can't be read.
        """
        token = bearer_token(request)
        if len(token) > _MAX_TOKEN_CHARS or not _TOKEN.fullmatch(token):
            return None
        cached = self._valid.get(token, self._clock())
        return cached.user if cached else await self._check(token)

    async def _check(self, token: str) -> User | None:
        header = _header(token)
        if header is None or header.alg not in _ALGORITHMS:
            return None
        keys = await self._jwks.keys(header.kid)
        try:
            claims = signed_claims(token, keys, _ALGORITHMS)
        except (JoseError, ValueError, TypeError, RecursionError):
            return None
        end = self._end(claims)
        user = self._user(claims) if end else None
        if user is not None:
            until = min(end, self._clock() + _CACHED_SECONDS)
            self._valid.put(token, FoundUser(user, until))
        return user

    def _user(self, claims: Mapping[str, object]) -> User | None:
        return user_from_claims(claims, issuer=self._user_issuer, id_claims=(self._id_claim,))

    def _end(self, claims: Mapping[str, object]) -> float:
        """The token's end, 0 for a token that is not for this service or not valid now."""
        now, expires = self._clock(), seconds_of(claims, "exp")
        begins = seconds_of(claims, "nbf", 0)
        if expires is None or begins is None:
            return 0.0
        if not begins - _TOLERANCE_SECONDS <= now < expires + _TOLERANCE_SECONDS:
            return 0.0
        is_ours = claims.get("iss") == self._issuer and self._is_for_us(claims.get("aud"))
        return expires + _TOLERANCE_SECONDS if is_ours else 0.0

    def _is_for_us(self, audience: object) -> bool:
        if self._audience is None:
            return True
        named = audience if isinstance(audience, list) else [audience]
        return self._audience in named


def _header(token: str) -> _Header | None:
    try:
        return msgspec.convert(jws.extract_compact(token.encode()).protected, _Header)
    except (JoseError, msgspec.ValidationError, ValueError, TypeError, RecursionError):
        return None
