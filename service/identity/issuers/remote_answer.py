"""A small JSON answer of a neighbour that knows users, fetched within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from service.errors import ProviderUnavailableError

_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
_MAX_BYTES = 1024 * 1024

_Kind = TypeVar("_Kind")


async def fetch(http: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> bytes | None:
    """The body at `url`, at most 1 MiB within 5 s; None for any status but 200.

    Raises ProviderUnavailableError without an answer.
    """
    body = bytearray()
    try:
        async with http.get(
            url, headers=headers, allow_redirects=False, timeout=_TIMEOUT
        ) as answer:
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise ProviderUnavailableError("The answer is too large.")
            return bytes(body) if answer.status == HTTPStatus.OK else None
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ProviderUnavailableError from error


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
