"""Answers in JSON, and answers that are streams of server-sent events."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from aiohttp import hdrs, web

from inngest_outbox.web.openapi.endpoint import JSON

EVENT_STREAM = "text/event-stream"
REQUEST_ID = "X-Request-Id"
request_id_key = web.RequestKey("request_id", str)
_encode = msgspec.json.Encoder().encode


def json_answer(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The answer with `value` in JSON."""
    return web.Response(body=_encode(value), status=status, content_type=JSON, headers=headers)


def event_source(
    request: web.Request, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """The stream that answers `request`, not begun yet.

    It carries the request's id: the middleware sees it only when it has ended.
    """
    own = {hdrs.CONTENT_TYPE: EVENT_STREAM, REQUEST_ID: request[request_id_key]}
    return web.StreamResponse(headers={**own, **(headers or {})})
