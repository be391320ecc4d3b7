"""Answers in JSON."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from aiohttp import web

from service.web.openapi.endpoint import JSON

NOT_STORED = {"Cache-Control": "no-store"}
_encode = msgspec.json.Encoder().encode


def json_answer(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The answer with `value` in JSON."""
    return web.Response(body=_encode(value), status=status, content_type=JSON, headers=headers)
