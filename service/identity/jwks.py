"""The public keys of an issuer of tokens, as it publishes them.

They are read again after an hour, and sooner when a token names a key that is not known, though not
more often than every ten seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import hdrs
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from service.errors import ProviderUnavailableError
from service.identity.remote_answer import decode, fetch

_FRESH_SECONDS = 3600.0
_REFETCH_SECONDS = 10.0
_KEY_TYPES = ("RSA", "EC", "OKP")
_DISCOVERY = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")


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
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: KeySet | None = None
        self._read_at = float("-inf")

    async def keys(self, kid: str | None) -> KeySet:
        """The keys, read anew where none has the id `kid`. Raises ProviderUnavailableError."""
        async with self._lock:
            age = self._clock() - self._read_at
            stale = age > _FRESH_SECONDS or (not self._has(kid) and age > _REFETCH_SECONDS)
            if self._keys is None or stale:
                self._keys = await self._read_keys()
                self._read_at = self._clock()
            return self._keys

    def _has(self, kid: str | None) -> bool:
        known = self._keys.keys if self._keys else []
        return kid is None or any(key.kid == kid for key in known)

    async def _read_keys(self) -> KeySet:
        url = self._jwks_url or await self._discover()
        if urlsplit(url).scheme not in ("https", urlsplit(self._issuer).scheme):
            raise ProviderUnavailableError("The issuer publishes its keys insecurely.")
        published = decode(await self._get(url) or b"", _Published)
        usable = [key for key in published.keys if _verifies(key)]
        try:
            return KeySet.import_key_set({"keys": usable})
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ProviderUnavailableError("The issuer publishes no usable keys.") from error

    async def _discover(self) -> str:
        for path in _DISCOVERY:
            answer = await self._get(self._issuer.rstrip("/") + path)
            if answer is not None:
                return decode(answer, _Metadata).jwks_uri
        raise ProviderUnavailableError("The issuer does not say where its keys are.")

    async def _get(self, url: str) -> bytes | None:
        return await fetch(self._http, url, {hdrs.ACCEPT: "application/json"})


def _verifies(key: dict[str, Any]) -> bool:
    return key.get("kty") in _KEY_TYPES and key.get("use", "sig") == "sig"
