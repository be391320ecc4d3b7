"""The Idempotency-Key of a request."""

from __future__ import annotations

import re

import msgspec
from aiohttp import web

from inngest_outbox.errors import IdempotencyKeyInvalidError
from inngest_outbox.outbox.keys import Digests, IdempotencyKey
from inngest_outbox.web.openapi.endpoint import Parameter

IDEMPOTENCY_KEY = "Idempotency-Key"
_KEY = "[!-~]{1,255}"
IDEMPOTENCY_PARAMETER = Parameter(
    IDEMPOTENCY_KEY,
    "A repeat with the same key and body is the same event and gets the same answer.",
    {"type": "string", "pattern": f"^{_KEY}$", "minLength": 1, "maxLength": 255},
    place="header",
)

_is_visible_ascii = re.compile(_KEY).fullmatch
_encode = msgspec.json.Encoder(order="sorted").encode


def given_key(request: web.Request) -> str | None:
    """The text of the request's key, None without one.

    Raises IdempotencyKeyInvalidError, also for a request with two keys.
    """
    keys = request.headers.getall(IDEMPOTENCY_KEY, ())
    if not keys:
        return None
    if len(keys) > 1 or not _is_visible_ascii(keys[0]):
        raise IdempotencyKeyInvalidError
    return keys[0]


def idempotency_key(
    request: web.Request, path: str, body: object, digests: Digests
) -> IdempotencyKey | None:
    """The request's key for a body that is posted to `path`, None without one.

    Equal bodies count as one whatever the order of their keys. Raises IdempotencyKeyInvalidError.
    """
    given = given_key(request)
    if given is None:
        return None
    return IdempotencyKey.of(given, path.encode() + b"\0" + _encode(body), digests)
