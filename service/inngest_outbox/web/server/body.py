"""A request's JSON body, read within a limit and validated into a frozen value."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import TypeVar

import msgspec
from aiohttp import hdrs, web

from inngest_outbox.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    EncodingRefusedError,
    InvalidFieldError,
    InvalidJsonError,
    JsonRequiredError,
)
from inngest_outbox.outbox.storable import MAX_DEPTH, is_too_deep
from inngest_outbox.web.server.body_budget import FREE_BYTES, Share, body_budget_key
from inngest_outbox.web.server.connection import Connection

MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 30.0
# Of a body above 64 KiB, which has a share of the budget.
SLOWEST_BYTES_A_SECOND = 64 * 1024
SLOW_SECONDS = 5.0
_GROWTH_BYTES = 256 * 1024
_JSON = "application/json"
# How msgspec names a field of a struct; keys of the client's own are not named so.
_FIELD = re.compile(r"(?:required field `|at `\$\.)(?P<field>\w+)")
_NO_ENCODING = ("", "identity")
JSON_REFUSALS = (
    JsonRequiredError,
    EncodingRefusedError,
    BodyTooLargeError,
    BodyTimeoutError,
    InvalidJsonError,
    InvalidFieldError,
)

_Body = TypeVar("_Body")


async def read_json(request: web.Request, decoder: msgspec.json.Decoder[_Body]) -> _Body:
    """The body, at most 64 KiB, as the decoder's type.

    Raises JsonRequiredError, BodyTooLargeError, InvalidJsonError unless it is a JSON object, and
    InvalidFieldError for an object of another type.
    """
    body = await read_json_bytes(request, max_bytes=MAX_BODY_BYTES)
    check_utf8(body)
    if not body.lstrip(b" \t\r\n").startswith(b"{"):
        raise InvalidJsonError
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise InvalidFieldError(faulty_field(exc)) from exc
    except (msgspec.DecodeError, RecursionError) as exc:
        raise InvalidJsonError from exc


def faulty_field(error: msgspec.ValidationError) -> str | None:
    """A sentence that names the field, None where it is not one of the body's own.

    >>> faulty_field(msgspec.ValidationError("Expected `str`, got `int` - at `$.size`"))
    'The field size is missing or has a wrong value.'
    """
    found = _FIELD.search(str(error))
    return f"The field {found['field']} is missing or has a wrong value." if found else None


def check_utf8(body: bytes) -> None:
    """Raise InvalidJsonError unless it is UTF-8. Decoders check only what they use."""
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as exc:
        raise InvalidJsonError from exc


def check_depth(body: bytes, decoded: object) -> None:
    """Raise InvalidJsonError for a body that is nested more than 500 levels deep."""
    if is_too_deep(body, decoded):
        raise InvalidJsonError(f"The body is nested more than {MAX_DEPTH} levels deep.")


def read_json_bytes(
    request: web.Request, *, max_bytes: int, owner: str | None = None
) -> Awaitable[bytes]:
    """The bytes of a body that says it is JSON and has at most `max_bytes`.

    Raises JsonRequiredError, and what `read_body` raises.
    """
    if request.content_type != _JSON:
        raise JsonRequiredError
    return read_body(request, max_bytes=max_bytes, owner=owner)


def read_body(
    request: web.Request, *, max_bytes: int, owner: str | None = None
) -> Awaitable[bytes]:
    """The bytes of a body of at most `max_bytes`.

    Raises EncodingRefusedError, and what `read_raw_body` raises.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is not None and encoding.strip().lower() not in _NO_ENCODING:
        raise EncodingRefusedError
    return read_raw_body(request, max_bytes=max_bytes, owner=owner)


async def read_raw_body(request: web.Request, *, max_bytes: int, owner: str | None = None) -> bytes:
    """The bytes of a body of at most `max_bytes`, whatever its encoding, never decompressed.

    A body of more than 64 KiB waits for its share of the budget, which it has until the request
    ends; `owner` None is the peer. Raises BodyTooLargeError, OutboxUnavailableError
    without a share, and BodyTimeoutError after 30 s, or for a large body that is too slow.
    """
    size = request.content_length or 0
    if size > max_bytes:
        raise BodyTooLargeError
    content = request.content
    if content.is_eof() and content.total_bytes <= FREE_BYTES:
        body = content.read_nowait()
    else:
        arriving = _Arriving(request, owner or request.remote or "", max_bytes)
        body = await arriving.read()
    if len(body) > max_bytes:
        raise BodyTooLargeError
    return body


class _Arriving:
    """A body that arrives, within its share of the budget."""

    def __init__(self, request: web.Request, owner: str, max_bytes: int) -> None:
        self._content = request.content
        self._declared = request.content_length or 0
        self._max_bytes = max_bytes
        budget, connection = request.app.get(body_budget_key), request.protocol
        self._share: Share | None = None
        if budget and isinstance(connection, Connection):
            self._share = connection.body_share = Share(budget, owner)
        self._granted = FREE_BYTES

    async def read(self) -> bytes:
        await self._grow(self._declared)
        clock = asyncio.get_running_loop().time
        body, began = bytearray(), clock()
        while chunk := await self._chunk(began + self._limit(len(body))):
            body += chunk
            if len(body) > self._max_bytes:
                raise BodyTooLargeError
            if len(body) > self._granted:
                stopped = clock()
                await self._grow(len(body) + _GROWTH_BYTES)
                began += clock() - stopped
        return bytes(body)

    async def _chunk(self, until: float) -> bytes:
        try:
            async with asyncio.timeout_at(until):
                return await self._content.readany()
        except TimeoutError as exc:
            raise BodyTimeoutError from exc

    def _limit(self, arrived: int) -> float:
        """The seconds after which the body is late, in all or by its speed."""
        if max(self._declared, arrived) <= FREE_BYTES:
            return BODY_SECONDS
        return min(BODY_SECONDS, SLOW_SECONDS + arrived / SLOWEST_BYTES_A_SECOND)

    async def _grow(self, size_bytes: int) -> None:
        if self._share and size_bytes > self._granted:
            await self._share.grow(size_bytes)
            self._granted = size_bytes
