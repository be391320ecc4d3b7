"""The outermost middleware: each request gets a request id, a JSON answer and a log line.

The invariant: whatever a handler raises, the client gets a JSON answer with `X-Request-Id`, and the
log has a line with that id. Nothing of the body, the cookies or the query is logged. An error in an
answer that has begun ends the connection: a second head would be taken for a part of the first.
"""

from __future__ import annotations

import re
import time

import structlog
import uuid_utils
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from inngest_outbox.errors import (
    BodyTimeoutError,
    InvalidJsonError,
    OutboxUnavailableError,
    RefusedError,
)
from inngest_outbox.observe.logs import RequestLine, request_log, timestamp
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.web.pages.error_pages import ErrorPages, wants_page
from inngest_outbox.web.server.answers import REQUEST_ID, request_id_key
from inngest_outbox.web.server.connection import Connection
from inngest_outbox.web.server.errors import (
    INTERNAL_ERROR,
    error_response,
    internal_error_response,
    refusal_of,
)

event_id_key = web.RequestKey("event_id", str)
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_is_request_id = re.compile(r"[A-Za-z0-9_.:-]{1,64}").fullmatch

_log = structlog.get_logger("inngest_outbox.web")


def error_middleware(recorder: Recorder, pages: ErrorPages | None = None) -> Middleware:
    """The middleware. A client's own request id is kept when it is a plain token.

    With `pages`, a browser gets an error as a page.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.protocol
        arrived_at = connection.arrived_at if isinstance(connection, Connection) else None
        began = arrived_at or time.monotonic()
        given = request.headers.get(REQUEST_ID)
        request_id = given if given and _is_request_id(given) else str(uuid_utils.uuid7())
        request[request_id_key] = request_id
        code = None
        response: web.StreamResponse
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001
            refusal = _refusal(error, request)
            if refusal is None:
                _log.exception("request_failed", request_id=request_id)
                response, code = internal_error_response(), INTERNAL_ERROR
            else:
                response, code = error_response(refusal), refusal.code
                recorder.count("refused", code=code)
        if pages and code and isinstance(response, web.Response) and wants_page(request):
            response = pages.page(request, response, request_id)
        if not response.prepared:
            response.headers[REQUEST_ID] = request_id
        if request_log.enabled and not _is_quiet(request, response):
            _log_line(request, response, request_id, code, time.monotonic() - began)
        if code and request.writer.output_size > 0:
            raise ConnectionError("An answer has begun already.")
        return response

    return answer


def _refusal(
    error: Exception, request: web.Request
) -> RefusedError | OutboxUnavailableError | None:
    """The refusal for `error`, None for a fault of the service. Raises redirects."""
    if isinstance(error, RefusedError | OutboxUnavailableError):
        return error
    if isinstance(error, web.HTTPException):
        if error.status < web.HTTPBadRequest.status_code:
            raise error
        return refusal_of(error)
    if isinstance(error, web.RequestPayloadError):
        return InvalidJsonError()
    if isinstance(error, ConnectionError) and request.transport is None:
        return BodyTimeoutError()  # the client left in the middle of its body
    return None


def _is_quiet(request: web.Request, response: web.StreamResponse) -> bool:
    """True for a successful probe, which is not worth a log line."""
    return request.path in _PROBES and response.status < web.HTTPBadRequest.status_code


def _log_line(
    request: web.Request,
    response: web.StreamResponse,
    request_id: str,
    code: str | None,
    seconds: float,
) -> None:
    resource = request.match_info.route.resource
    request_log.write(
        RequestLine(
            "request",
            "info",
            timestamp(),
            request_id,
            request.method,
            resource.canonical if resource else None,
            response.status,
            round(seconds * 1000, 2),
            code,
            request.get(event_id_key),
        )
    )
