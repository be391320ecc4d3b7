"""Sign-in through OpenID Connect: the code flow with PKCE, from its start to a user.

An answer counts only with the state, nonce and code verifier of the attempt that this browser
started, and with an ID token that the provider signed for this client. Only public-key signatures
are accepted; a token without a signature, or signed with a shared secret, is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from authlib.oauth2 import OAuth2Client
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError

from inngest_outbox.errors import ProviderUnavailableError, SignInFailedError
from inngest_outbox.identity.jwks import signed_claims
from inngest_outbox.identity.oidc_provider import Metadata, OidcProvider
from inngest_outbox.identity.sign_in_attempt import SignInAttempt
from inngest_outbox.identity.user import User, user_from_claims

_SCOPE = "openid email profile"
_TOLERANCE_SECONDS = 60
_ANSWER_SECONDS = 10.0
_MAX_TOKEN_CHARS = 64 * 1024
_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)

Claims = dict[str, Any]


class OidcSignIn:
    """Starts and finishes sign-ins at one provider, each step within `answer_seconds`.

    `user_issuer` is the issuer of the users' ids.
    """

    def __init__(
        self,
        provider: OidcProvider,
        *,
        user_issuer: str,
        answer_seconds: float = _ANSWER_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider = provider
        self._user_issuer = user_issuer
        self._answer_seconds = answer_seconds
        self._clock = clock

    async def begin(self, attempt: SignInAttempt) -> str:
        """The address where the browser signs in. Raises ProviderUnavailableError."""
        async with self._in_time():
            metadata = await self._provider.metadata()
        client = OAuth2Client(
            session=None,
            client_id=self._provider.client_id,
            redirect_uri=attempt.redirect_uri,
            scope=_SCOPE,
            code_challenge_method="S256",
        )
        url, _ = client.create_authorization_url(
            metadata.authorization_endpoint,
            state=attempt.state,
            code_verifier=attempt.code_verifier,
            nonce=attempt.nonce,
        )
        return str(url)

    async def finish(self, attempt: SignInAttempt, answer: Mapping[str, str]) -> User:
        """The user that the provider names in its `answer`, the query of the callback.

        Raises SignInFailedError when the answer does not match the attempt, and
        ProviderUnavailableError.
        """
        state = answer.get("state", "").encode(errors="replace")
        if not hmac.compare_digest(state, attempt.state.encode()):
            raise SignInFailedError("This sign-in was not started in this browser. Start again.")
        async with self._in_time():
            return await self._finish(attempt, answer)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._answer_seconds):
                yield
        except TimeoutError as exc:
            raise ProviderUnavailableError from exc

    async def _finish(self, attempt: SignInAttempt, answer: Mapping[str, str]) -> User:
        metadata = await self._provider.metadata()
        if answer.get("iss", metadata.issuer) != metadata.issuer:
            raise SignInFailedError
        if metadata.authorization_response_iss_parameter_supported and "iss" not in answer:
            raise SignInFailedError
        if "error" in answer or not answer.get("code"):
            raise SignInFailedError("The identity provider did not sign you in.")
        return await self._exchange(attempt, answer["code"], metadata)

    async def _exchange(self, attempt: SignInAttempt, code: str, metadata: Metadata) -> User:
        tokens = await self._provider.exchange(code, attempt.code_verifier, attempt.redirect_uri)
        claims = await self._verify(tokens.id_token, attempt.nonce, metadata)
        if "email" not in claims and tokens.access_token:
            claims = self._with_userinfo(claims, await self._provider.userinfo(tokens.access_token))
        user = user_from_claims(claims, issuer=self._user_issuer, id_claims=("sub",))
        if user is None:
            raise SignInFailedError("The identity provider did not say who you are.")
        return user

    def _with_userinfo(self, claims: Claims, userinfo: Claims) -> Claims:
        """The claims of both. `email` and `email_verified` come from the same source."""
        if userinfo and userinfo.get("sub") != claims["sub"]:
            raise SignInFailedError
        signed = {name: value for name, value in claims.items() if name != "email_verified"}
        return {**userinfo, **signed}

    async def _verify(self, id_token: str, nonce: str, metadata: Metadata) -> Claims:
        if len(id_token) > _MAX_TOKEN_CHARS:
            raise SignInFailedError
        algorithms = sorted(_ALGORITHMS & {*metadata.id_token_signing_alg_values_supported})
        if not algorithms:  # joserfc reads an empty list as its own default
            raise ProviderUnavailableError(
                "The identity provider uses no signature that is accepted here."
            )
        try:
            claims = await self._decode(id_token, algorithms)
            self._registry(metadata.issuer, nonce).validate(claims)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as exc:
            raise SignInFailedError from exc
        azp, several = claims.get("azp"), isinstance(claims["aud"], list) and claims["aud"][1:]
        if azp != self._provider.client_id and (azp is not None or several):
            raise SignInFailedError
        return claims

    async def _decode(self, id_token: str, algorithms: list[str]) -> Claims:
        keys = await self._provider.keys()
        try:
            return signed_claims(id_token, keys, algorithms)
        except (InvalidKeyIdError, BadSignatureError):
            newer = await self._provider.newer_keys()
            if newer is None:
                raise
        return signed_claims(id_token, newer, algorithms)

    def _registry(self, issuer: str, nonce: str) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            now=lambda: int(self._clock()),
            leeway=_TOLERANCE_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": self._provider.client_id},
            nonce={"essential": True, "value": nonce},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
