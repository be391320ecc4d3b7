"""Answers that are streams of server-sent events."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import hdrs, web

from service.web.server.middleware import REQUEST_ID, request_id_key

EVENT_STREAM = "text/event-stream"


def event_source(
    request: web.Request, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """The stream that answers `request`, not begun yet.

    It carries the request's id: the middleware sees it only when it has ended.
    """
    own = {hdrs.CONTENT_TYPE: EVENT_STREAM, REQUEST_ID: request[request_id_key]}
    return web.StreamResponse(headers={**own, **(headers or {})})
