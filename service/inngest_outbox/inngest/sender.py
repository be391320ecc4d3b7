"""Sending a batch to Inngest's Event API: one POST of bytes that are encoded already.

The invariant: no error and no result here holds the URL, since the event key is part of it; not
even when a server's answer quotes its path. Answers and faults come back as values;
`inngest_outbox.inngest.send_result` says what they mean.
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import quote

import aiohttp
import msgspec

from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import plain
from inngest_outbox.inngest.address import inngest_address
from inngest_outbox.inngest.send_result import MAX_WORDS, TIMEOUT, SendResult
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.inngest_id import ENVIRONMENT_HEADER

_MAX_ANSWER_BYTES = 1024 * 1024
_LARGE_BYTES = 1024 * 1024
_KEY_REFUSED = frozenset({401, 403, 404})  # the cloud answers 404 for a wrong key
_UNAVAILABLE = 503
_OK = 200
_KEY_TAKEN = frozenset({200, 400})
_HIDDEN = "********"


class _Body(msgspec.Struct):
    ids: tuple[str, ...] | None = None
    error: str | None = None
    status: object = None


class InngestSender:
    """The `Sender` over `POST {origin}/e/{key}`.

    `fallback_key` is used while the first key is refused, and kept as long as it works. `unreached`
    gets the reason when no connection could be made.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        origin: str,
        key: str,
        fallback_key: str | None,
        environment: str | None,
        timeout_seconds: float,
        unreached: Callable[[Exception], object] | None = None,
    ) -> None:
        self._session = session
        self._unreached = unreached
        base = f"{origin.rstrip('/')}/e/"
        keys = [one for one in (key, fallback_key) if one]
        self._urls = tuple(base + quote(one, safe="") for one in keys)
        self._secrets = {*keys, *(quote(one, safe="") for one in keys)}
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._headers = {"Content-Type": "application/json"}
        if environment:
            self._headers[ENVIRONMENT_HEADER] = environment

    async def send(self, payloads: bytes, headers: Mapping[str, str] = {}) -> SendResult:
        """Post the events. Faults of the network and the server are results, not errors."""
        body = b"".join((b"[", payloads, b"]"))
        named = {**self._headers, **headers}
        # Other sends may swap the keys while this one waits.
        first, *other = self._urls
        result = await self._post(first, body, named)
        if result.status not in _KEY_REFUSED or not other:
            return result
        result = await self._post(other[0], body, named)
        if result.status in _KEY_TAKEN:
            self._urls = (other[0], first)
        return result

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> SendResult:
        try:
            async with self._session.post(
                url,
                # aiohttp writes large bytes in pieces only from a file.
                data=body if len(body) < _LARGE_BYTES else io.BytesIO(body),
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,  # a redirected POST would become an empty GET
            ) as response:
                text = await response.content.read(_MAX_ANSWER_BYTES)
                while not response.content.at_eof() and len(text) < _MAX_ANSWER_BYTES:
                    text += await response.content.read(_MAX_ANSWER_BYTES)
                return self._presentable(_result(response, text))
        except aiohttp.ClientConnectorError as error:
            if self._unreached:
                self._unreached(error)
            return SendResult(None, words=_fault(error), reached=False)
        except TimeoutError:
            return SendResult(None, words=TIMEOUT)
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError, ValueError) as error:
            return SendResult(None, words=_fault(error))

    def _presentable(self, result: SendResult) -> SendResult:
        """The result with the server's words made printable, cut short, without quoted keys."""
        if not result.words:
            return result
        words = result.words
        for secret in self._secrets:
            words = words.replace(secret, _HIDDEN)
        return replace(result, words=printable(words[:MAX_WORDS]))


def make_sender(
    settings: Settings,
    http: aiohttp.ClientSession,
    *,
    timeout_seconds: float,
    unreached: Callable[[Exception], object] | None = None,
) -> InngestSender:
    """The sender to the Inngest of the settings."""
    address = inngest_address(settings)
    return InngestSender(
        http,
        origin=address.event_api_origin,
        key=address.event_key,
        fallback_key=plain(settings.inngest_event_key_fallback),
        environment=address.environment,
        timeout_seconds=timeout_seconds,
        unreached=unreached,
    )


def _result(response: aiohttp.ClientResponse, text: bytes) -> SendResult:
    try:
        body = msgspec.json.decode(text, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    status = response.status
    if body is None:
        words, ids = _words_of_another(response, text), None
    else:
        words, ids = body.error or "", body.ids
        # A gateway may put the failure of what is behind it into an answer of its own.
        if status == _OK and isinstance(body.status, int):
            status = body.status
    return SendResult(
        status,
        ids,
        words,
        _seconds(response.headers.get("Retry-After")),
        _skew(response.headers.get("Date")),
    )


def _words_of_another(response: aiohttp.ClientResponse, text: bytes) -> str:
    """Words for an answer that is not the API's JSON; quotes it only where that helps."""
    if response.status == _UNAVAILABLE and b"event key" in text.lower():
        return "event keys are required"
    return f"an answer that is not the API's ({response.content_type}, {len(text)} bytes)"


def _fault(error: Exception) -> str:
    """The fault in words, without an address."""
    cause = error.__cause__ or error
    reason = getattr(cause, "strerror", None)
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _seconds(header: str | None) -> float | None:
    """A Retry-After in seconds, from either of its forms; None when there is none."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        moment = _moment(header)
        return None if moment is None else max(0.0, moment - time.time())


def _skew(header: str | None) -> float | None:
    """The seconds by which our wall clock is ahead of the server's."""
    moment = _moment(header) if header else None
    return None if moment is None else time.time() - moment


@functools.lru_cache(maxsize=4)
def _moment(header: str) -> float | None:
    """The moment that a header names; the answers of one second name the same one."""
    try:
        return email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError):
        return None
