"""From an error to an answer: the one place where HTTP status codes stand beside errors.

Every failure has one form, `{"status": "error", "code": …, "error": …}`. The invariant: no answer
holds input, a stack trace or a cause.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import hdrs, web

from service import errors

STATUS: dict[type[errors.ServiceError], int] = {
    errors.InvalidJsonError: 400,
    errors.InvalidFieldError: 400,
    errors.DocumentNameRequiredError: 400,
    errors.DocumentNameInvalidError: 400,
    errors.IdempotencyKeyInvalidError: 400,
    errors.SignInFailedError: 400,
    errors.SessionRequiredError: 401,
    errors.MetricsTokenRequiredError: 401,
    errors.CrossSiteRequestError: 403,
    errors.OperatorRequiredError: 403,
    errors.NotFoundError: 404,
    errors.DocumentNotFoundError: 404,
    errors.MethodNotAllowedError: 405,
    errors.EventLeftError: 409,
    errors.BodyTimeoutError: 408,
    errors.BodyTooLargeError: 413,
    errors.JsonRequiredError: 415,
    errors.IdempotencyKeyReusedError: 422,
    errors.TooManyPendingError: 429,
    errors.StorageNotConfiguredError: 503,
    errors.StorageUnavailableError: 503,
    errors.ProviderUnavailableError: 503,
    errors.OutboxFullError: 503,
    errors.OutboxUnavailableError: 503,
}
INTERNAL_ERROR = "internal_error"
BAD_REQUEST = "bad_request"
HEADERS_TOO_LARGE = "headers_too_large"
# Codes of answers that no error of ours stands behind, with their status and their sentence.
UNTYPED_CODES = {
    BAD_REQUEST: (400, "The request is not HTTP that can be parsed."),
    "expectation_failed": (417, "The request's Expect header can't be met."),
    HEADERS_TOO_LARGE: (431, "A line of the request's head is larger than is accepted here."),
    INTERNAL_ERROR: (500, "Something failed here. The request id tells us what."),
}

_encode = msgspec.json.Encoder().encode


class ErrorAnswer(msgspec.Struct, frozen=True, gc=False):
    """The form of every failure."""

    status: Literal["error"]
    code: str
    error: str


def error_response(error: errors.RefusedError | errors.OutboxUnavailableError) -> web.Response:
    """The answer to a refused request."""
    response = _response(STATUS[type(error)], error.code, str(error))
    if error.retry_after_seconds is not None:
        response.headers[hdrs.RETRY_AFTER] = str(error.retry_after_seconds)
    return response


def http_error_response(error: web.HTTPException) -> web.Response:
    """The answer to what aiohttp itself refuses (an unknown path, a wrong method, …)."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        response = error_response(errors.MethodNotAllowedError())
        response.headers[hdrs.ALLOW] = ", ".join(sorted(error.allowed_methods))
        return response
    if isinstance(error, web.HTTPNotFound):
        return error_response(errors.NotFoundError())
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return error_response(errors.BodyTooLargeError())
    code = (error.reason or "error").lower().replace(" ", "_")
    return _response(error.status, code, "The request can't be handled.")


def malformed_response(*, too_large: bool) -> web.Response:
    """The answer to what is no HTTP request, or one with a line that is `too_large`."""
    return _untyped(HEADERS_TOO_LARGE if too_large else BAD_REQUEST)


def unknown_method_response() -> web.Response:
    """The answer to a method that HTTP servers do not know, whatever the path."""
    response = error_response(errors.MethodNotAllowedError())
    response.headers[hdrs.ALLOW] = "DELETE, GET, HEAD, POST, PUT"
    return response


def internal_error_response() -> web.Response:
    """The answer to a fault of ours."""
    return _untyped(INTERNAL_ERROR)


def _untyped(code: str) -> web.Response:
    status, sentence = UNTYPED_CODES[code]
    return _response(status, code, sentence)


def _response(status: int, code: str, sentence: str) -> web.Response:
    return web.Response(
        status=status,
        body=_encode(ErrorAnswer("error", code, sentence)),
        content_type="application/json",
    )
