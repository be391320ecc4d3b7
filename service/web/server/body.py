"""A request's JSON body, read within a limit and validated into a frozen value."""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import msgspec
from aiohttp import StreamReader, hdrs, web

from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    EncodingRefusedError,
    InvalidFieldError,
    InvalidJsonError,
    JsonRequiredError,
)
from service.outbox.nesting import MAX_DEPTH, is_too_deep

MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 30.0
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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
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


async def read_json_bytes(request: web.Request, *, max_bytes: int) -> bytes:
    """The bytes of a body that says it is JSON and has at most `max_bytes`.

    Raises JsonRequiredError, and what `read_body` raises.
    """
    if request.content_type != _JSON:
        raise JsonRequiredError
    return await read_body(request, max_bytes=max_bytes)


async def read_body(request: web.Request, *, max_bytes: int) -> bytes:
    """The bytes of a body of at most `max_bytes`.

    Raises EncodingRefusedError, and what `read_raw_body` raises.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is not None and encoding.strip().lower() not in _NO_ENCODING:
        raise EncodingRefusedError
    return await read_raw_body(request, max_bytes=max_bytes)


async def read_raw_body(
    request: web.Request, *, max_bytes: int, seconds: float = BODY_SECONDS
) -> bytes:
    """The bytes of a body of at most `max_bytes`, whatever its encoding, never decompressed.

    Raises BodyTooLargeError, and BodyTimeoutError after `seconds`.
    """
    if (request.content_length or 0) > max_bytes:
        raise BodyTooLargeError
    content = request.content
    if content.is_eof():
        body = content.read_nowait()
    else:
        body = await _arriving(content, max_bytes, seconds)
    if len(body) > max_bytes:
        raise BodyTooLargeError
    return body


async def _arriving(content: StreamReader, max_bytes: int, seconds: float) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    raise BodyTooLargeError
    except TimeoutError as exc:
        raise BodyTimeoutError from exc
    return bytes(body)
