"""The answer to a request that can't be parsed.

aiohttp answers it in plain text, before any middleware. Its answer and its log line quote the
request, for example a session cookie. Here neither may contain input.
"""

from __future__ import annotations

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong

from service.errors import (
    HeadTimeoutError,
    HeadTooLargeError,
    MalformedRequestError,
    MethodNotAllowedError,
    RefusedError,
)
from service.observe.recorder import Recorder
from service.web.server.errors import METHODS, error_response
from service.web.server.request_parser import HeadSizeError

# aiohttp has no class of its own for this fault.
_TOO_MANY_HEADERS = "Too many headers"

_log = structlog.get_logger(__name__)


class HeadSecondsError(HttpProcessingError):
    """The head did not arrive in time."""


def malformed_response(
    fault: BaseException | None, request_id: str, recorder: Recorder
) -> web.Response:
    """Answer, count and log `fault`, which the parser found."""
    refusal = _refusal(fault)
    recorder.count("refused", code=refusal.code)
    _log.info("malformed_request", request_id=request_id, reason=type(fault).__name__)
    return error_response(refusal)


def _refusal(fault: BaseException | None) -> RefusedError:
    if isinstance(fault, HeadSecondsError):
        return HeadTimeoutError()
    if isinstance(fault, BadHttpMethod):
        return MethodNotAllowedError(allowed=METHODS)
    if isinstance(fault, LineTooLong | HeadSizeError) or _TOO_MANY_HEADERS in str(fault):
        return HeadTooLargeError()
    return MalformedRequestError()
