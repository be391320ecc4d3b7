"""Requests to the OpenID provider: discovery, keys, and the exchange of codes.

What the provider publishes is read again after an hour. Its keys are also read when a token names
an unknown one, at most every ten seconds. After a failure the provider is not asked for five
seconds. Tokens are judged elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec
import structlog
from aiohttp import hdrs
from authlib.oauth2 import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_token_request
from joserfc.jwk import KeySet
from yarl import URL

from inngest_outbox.errors import ProviderUnavailableError, SignInFailedError
from inngest_outbox.identity.jwks import import_keys
from inngest_outbox.identity.remote_answer import SharedValue, decode, is_as_secure, read

_FRESH_SECONDS = 3600.0
_REFETCH_SECONDS = 10.0
_TIMEOUT_SECONDS = 8.0
_FORM = {hdrs.CONTENT_TYPE: "application/x-www-form-urlencoded", hdrs.ACCEPT: "application/json"}
_SILENT_SECONDS = 5.0
# What a provider answers when the code or the token, not the provider, is at fault.
_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN)

_log = structlog.get_logger(__name__)


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """The provider's metadata (OpenID Connect Discovery)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    id_token_signing_alg_values_supported: tuple[str, ...] = ("RS256",)
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """The token endpoint's answer."""

    id_token: str
    access_token: str | None = None


class OidcProvider:
    """One provider, and this service's client there. With `client_secret` None it is public.

    An answer must come within `timeout_seconds`.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str | None,
        http: aiohttp.ClientSession,
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client_id = client_id
        self._issuer = issuer
        self._client_secret = client_secret
        self._requests = ProviderRequests(http, timeout_seconds, clock)
        self._metadata = SharedValue(
            self._fetch_metadata, fresh_seconds=_FRESH_SECONDS, clock=clock
        )
        self._keys = SharedValue(self._fetch_keys, fresh_seconds=_FRESH_SECONDS, clock=clock)

    async def metadata(self) -> Metadata:
        """The provider's metadata. Raises ProviderUnavailableError."""
        return await self._metadata.get()

    async def keys(self) -> KeySet:
        """The provider's public signature keys. Raises ProviderUnavailableError."""
        return await self._keys.get()

    async def newer_keys(self) -> KeySet | None:
        """The keys, fetched again. None when they were fetched in the last ten seconds.

        Raises ProviderUnavailableError.
        """
        return await self._keys.renewed(_REFETCH_SECONDS)

    async def exchange(self, code: str, code_verifier: str, redirect_uri: str) -> Tokens:
        """The tokens for a code. A code works once.

        Raises SignInFailedError when the provider refuses, and ProviderUnavailableError.
        """
        metadata = await self.metadata()
        body = prepare_token_request(
            "authorization_code", redirect_uri=redirect_uri, code=code, code_verifier=code_verifier
        )
        auth = ClientAuth(self.client_id, self._client_secret, self._auth_method(metadata))
        url, headers, body = auth.prepare("POST", metadata.token_endpoint, dict(_FORM), body)
        answer = await self._requests.ask("POST", url, headers=headers, data=body)
        return decode(answer, Tokens)

    async def userinfo(self, access_token: str) -> dict[str, Any]:
        """The claims of the userinfo endpoint, empty where the provider has none.

        Raises SignInFailedError, ProviderUnavailableError.
        """
        metadata = await self.metadata()
        if metadata.userinfo_endpoint is None:
            return {}
        headers = {hdrs.AUTHORIZATION: f"Bearer {access_token}", hdrs.ACCEPT: "application/json"}
        answer = await self._requests.ask("GET", metadata.userinfo_endpoint, headers=headers)
        return decode(answer, dict[str, Any])

    def _auth_method(self, metadata: Metadata) -> str:
        if self._client_secret is None:
            return "none"
        supported = metadata.token_endpoint_auth_methods_supported
        basic = "client_secret_basic"
        return basic if basic in supported else "client_secret_post"

    async def _fetch_metadata(self) -> Metadata:
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        metadata = decode(await self._requests.published(url), Metadata)
        self._check_metadata(metadata)
        return metadata

    def _check_metadata(self, metadata: Metadata) -> None:
        if metadata.issuer.rstrip("/") != self._issuer.rstrip("/"):
            raise ProviderUnavailableError(
                "The identity provider names another issuer than OIDC_ISSUER."
            )
        for endpoint in (
            metadata.authorization_endpoint,
            metadata.token_endpoint,
            metadata.jwks_uri,
            metadata.userinfo_endpoint or metadata.jwks_uri,
        ):
            if not is_as_secure(endpoint, self._issuer):
                raise ProviderUnavailableError("The identity provider has an insecure endpoint.")

    async def _fetch_keys(self) -> KeySet:
        metadata = await self.metadata()
        published = decode(
            await self._requests.published(metadata.jwks_uri), dict[str, list[dict[str, Any]]]
        )
        return import_keys(published.get("keys", ()))


class ProviderRequests:
    """Asks one provider, which must answer within `timeout_seconds`."""

    def __init__(
        self, http: aiohttp.ClientSession, timeout_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._http = http
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._clock = clock
        self._silent_until = float("-inf")

    async def published(self, url: str) -> bytes:
        """The bytes that the provider publishes at `url`. Raises ProviderUnavailableError."""
        try:
            return await self.ask("GET", url, headers={hdrs.ACCEPT: "application/json"})
        except SignInFailedError as exc:
            raise ProviderUnavailableError from exc

    async def ask(self, method: str, url: str, **request: Any) -> bytes:
        """The body of a good answer.

        Raises SignInFailedError when the provider refuses what was sent, ProviderUnavailableError
        for any other answer and for none.
        """
        if self._clock() < self._silent_until:
            raise ProviderUnavailableError
        try:
            async with self._http.request(
                method,
                URL(url, encoded=True),
                allow_redirects=False,
                timeout=self._timeout,
                **request,
            ) as answer:
                body = await read(answer)
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            self._silent_until = self._clock() + _SILENT_SECONDS
            raise ProviderUnavailableError from exc
        if answer.status == HTTPStatus.OK:
            return body
        _log.warning("oidc_provider_refused", path=answer.url.path, status=answer.status)
        if answer.status in _REFUSALS:
            raise SignInFailedError
        raise ProviderUnavailableError
