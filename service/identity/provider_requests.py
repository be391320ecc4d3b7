"""Requests to an OpenID provider: bounded in time and size, without redirects.

A provider that did not answer is not asked again for five seconds: who asks meanwhile learns it at
once. An answer of the provider, whichever it is, ends that.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import aiohttp
import structlog
from aiohttp import hdrs
from yarl import URL

from service.errors import ProviderUnavailableError, SignInFailedError

_SILENT_SECONDS = 5.0
_MAX_ANSWER_BYTES = 1024 * 1024
# What a provider answers when the code or the token, not the provider, is at fault.
_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN)

_log = structlog.get_logger(__name__)


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
        """What the provider publishes at `url`. Raises ProviderUnavailableError."""
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
                body = await _read(answer)
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            self._silent_until = self._clock() + _SILENT_SECONDS
            raise ProviderUnavailableError from exc
        if answer.status == HTTPStatus.OK:
            return body
        _log.warning("oidc_provider_refused", path=answer.url.path, status=answer.status)
        if answer.status in _REFUSALS:
            raise SignInFailedError
        raise ProviderUnavailableError


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise ProviderUnavailableError("The identity provider's answer is too large.")
    return bytes(body)
