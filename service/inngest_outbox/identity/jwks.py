"""The public keys of an issuer of tokens, as it publishes them.

They are read again after an hour, and sooner when a token names a key that is not known, though not
more often than every ten seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
import msgspec
import structlog
from aiohttp import hdrs
from joserfc import jws, jwt
from joserfc.errors import (
    BadSignatureError,
    InvalidKeyCurveError,
    InvalidKeyTypeError,
    JoseError,
)
from joserfc.jwk import JWKRegistry, Key, KeySet

from inngest_outbox.errors import ProviderUnavailableError
from inngest_outbox.identity.remote_answer import SharedValue, decode, fetch, is_as_secure

_FRESH_SECONDS = 3600.0
_REFETCH_SECONDS = 10.0
_DISCOVERY = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")
_KEY_TYPES = ("RSA", "EC", "OKP")

_log = structlog.get_logger(__name__)


class _Metadata(msgspec.Struct, frozen=True, gc=False):
    jwks_uri: str


class _Published(msgspec.Struct, frozen=True, gc=False):
    keys: list[dict[str, Any]]


class Jwks:
    """The key set of `issuer`, at `jwks_url`, or None for where the issuer's metadata says."""

    def __init__(
        self,
        issuer: str,
        http: aiohttp.ClientSession,
        *,
        jwks_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._http = http
        self._jwks_url = jwks_url
        self._keys = SharedValue(self._read_keys, fresh_seconds=_FRESH_SECONDS, clock=clock)

    async def keys(self, kid: str | None) -> KeySet:
        """The keys, read again when none has the id `kid`. Raises ProviderUnavailableError."""
        keys = await self._keys.get()
        is_known = kid is None or any(key.kid == kid for key in keys.keys)
        if is_known or self._keys.age_seconds <= _REFETCH_SECONDS:
            return keys
        return await self._keys.renewed(_REFETCH_SECONDS) or keys

    async def _read_keys(self) -> KeySet:
        url = self._jwks_url or await self._discover()
        if not is_as_secure(url, self._issuer):
            raise ProviderUnavailableError("The issuer publishes its keys insecurely.")
        published = decode(await self._get(url) or b"", _Published)
        return import_keys(published.keys)

    async def _discover(self) -> str:
        for path in _DISCOVERY:
            answer = await self._get(self._issuer.rstrip("/") + path)
            if answer is not None:
                return decode(answer, _Metadata).jwks_uri
        raise ProviderUnavailableError("The issuer does not say where its keys are.")

    async def _get(self, url: str) -> bytes | None:
        return await fetch(self._http, url, {hdrs.ACCEPT: "application/json"})


def signed_claims(token: str, keys: KeySet, algorithms: list[str]) -> dict[str, Any]:
    """The claims of a token that one of `keys` signed, under one of `algorithms`.

    A token that names no key is tried with each key of its type. Raises JoseError, ValueError,
    TypeError or RecursionError for any other token.
    """
    if "kid" in jws.extract_compact(token.encode()).protected:
        return jwt.decode(token, keys, algorithms=algorithms).claims
    for key in keys.keys:
        with contextlib.suppress(BadSignatureError, InvalidKeyTypeError, InvalidKeyCurveError):
            return jwt.decode(token, key, algorithms=algorithms).claims
    raise BadSignatureError


def import_keys(published: Iterable[dict[str, Any]]) -> KeySet:
    """The usable keys among `published`; one that makes no sense does not spoil the others.

    Raises ProviderUnavailableError when none is usable.
    """
    keys = [key for one in published if (key := _import_key(one))]
    if not keys:
        raise ProviderUnavailableError("The issuer publishes no usable keys.")
    return KeySet(keys)


def _import_key(published: dict[str, Any]) -> Key | None:
    """A public signature key, None for a key of another kind."""
    if published.get("kty") not in _KEY_TYPES or published.get("use", "sig") != "sig":
        return None
    try:
        return JWKRegistry.import_key(published)
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        _log.warning("issuer_key_unusable", reason=type(exc).__name__)
        return None
