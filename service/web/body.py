"""A request's JSON body, read within a limit and validated into a frozen value."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from aiohttp import web

from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    InvalidFieldError,
    InvalidJsonError,
    JsonRequiredError,
)

MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 30.0
JSON_REFUSALS = (
    JsonRequiredError,
    BodyTooLargeError,
    BodyTimeoutError,
    InvalidJsonError,
    InvalidFieldError,
)

_Body = TypeVar("_Body")


async def read_json(request: web.Request, decoder: msgspec.json.Decoder[_Body]) -> _Body:
    """The body, at most 64 KiB, as the decoder's type.

    Raises JsonRequiredError, BodyTooLargeError, InvalidJsonError for what is no JSON object, and
    InvalidFieldError for an object that is not of the type.
    """
    body = await read_json_bytes(request, max_bytes=MAX_BODY_BYTES)
    check_utf8(body)
    if not body.lstrip(b" \t\r\n").startswith(b"{"):
        raise InvalidJsonError
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise InvalidFieldError from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidJsonError from exc


def check_utf8(body: bytes) -> None:
    """Raise InvalidJsonError for what is not UTF-8; decoders look only at what they need."""
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as exc:
        raise InvalidJsonError from exc


async def read_json_bytes(request: web.Request, *, max_bytes: int) -> bytes:
    """The bytes of a body that says it is JSON and has at most `max_bytes`.

    Raises JsonRequiredError, BodyTooLargeError, and BodyTimeoutError after 30 s.
    """
    if request.content_type != "application/json":
        raise JsonRequiredError
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    raise BodyTooLargeError
    except TimeoutError as exc:
        raise BodyTimeoutError from exc
    return bytes(body)
