"""Answers of neighbours that know users: fetched within bounds, shared by all who wait, cached.

A failed fetch is not repeated for some seconds: callers get the failure at once. A cancelled caller
leaves the fetch to the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from inngest_outbox.errors import ProviderUnavailableError
from inngest_outbox.shielded import shielded

_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
_MAX_BYTES = 1024 * 1024

_Kind = TypeVar("_Kind")
_FAILURE_SECONDS = 5.0
_NEVER = float("-inf")

_Value = TypeVar("_Value")


async def fetch(http: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> bytes | None:
    """The body at `url`, at most 1 MiB within 5 s; None for any status but 200.

    Raises ProviderUnavailableError without an answer.
    """
    try:
        async with http.get(
            url, headers=headers, allow_redirects=False, timeout=_TIMEOUT
        ) as answer:
            body = await read(answer)
            return body if answer.status == HTTPStatus.OK else None
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ProviderUnavailableError from error


async def read(answer: aiohttp.ClientResponse) -> bytes:
    """The body, at most 1 MiB. Raises ProviderUnavailableError for a larger one."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise ProviderUnavailableError("The answer is too large.")
    return bytes(body)


def is_as_secure(url: str, issuer: str) -> bool:
    """True when `url`, which an issuer names, is asked over https, or as the issuer itself.

    >>> is_as_secure("http://a.example", "https://a.example"), is_as_secure("https://[", "https://a")
    (False, False)
    """
    try:
        return urlsplit(url).scheme in ("https", urlsplit(issuer).scheme)
    except ValueError:
        return False


def decode(body: bytes, kind: type[_Kind]) -> _Kind:
    """The answer as `kind`. Raises ProviderUnavailableError for anything else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProviderUnavailableError("The answer has an unexpected form.") from error


class SharedValue(Generic[_Value]):
    """The result of `fetch`, fetched again when it is older than `fresh_seconds`.

    `fetch` raises ProviderUnavailableError and has its own time limit.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[_Value]],
        *,
        fresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._found: tuple[_Value, float] | None = None  # and when it was fetched
        self._failure = ("", _NEVER)  # its words, and when it came
        self._renewed_at = _NEVER
        self._fetching: asyncio.Task[_Value] | None = None

    async def get(self) -> _Value:
        """The value, fetched if needed. Raises ProviderUnavailableError."""
        found = self._found
        if found is None or self._clock() - found[1] > self._fresh_seconds:
            return await self._shared_fetch()
        return found[0]

    @property
    def age_seconds(self) -> float:
        """The age of the value; infinite before the first fetch."""
        return self._clock() - (self._found[1] if self._found else _NEVER)

    async def renewed(self, every_seconds: float) -> _Value | None:
        """The value, fetched again. None when it was fetched in the last `every_seconds`.

        Raises ProviderUnavailableError.
        """
        if self._fetching is None:
            if self._clock() - self._renewed_at < every_seconds:
                return None
            self._renewed_at = self._clock()
        return await self._shared_fetch()

    async def _shared_fetch(self) -> _Value:
        if self._fetching is None:
            words, failed_at = self._failure
            if self._clock() - failed_at < _FAILURE_SECONDS:
                raise ProviderUnavailableError(words)
            self._fetching = asyncio.create_task(self._fetch_once(), name="shared-fetch")
            self._fetching.add_done_callback(self._end)
        return await shielded(self._fetching)

    async def _fetch_once(self) -> _Value:
        try:
            value = await self._fetch()
        except ProviderUnavailableError as exc:
            self._failure = (str(exc), self._clock())
            raise
        self._found = (value, self._clock())
        return value

    def _end(self, _: object) -> None:
        self._fetching = None
