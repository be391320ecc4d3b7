"""Turns errors into answers: the only place that maps errors to HTTP status codes.

Every failure has the form `{"status": "error", "code": …, "error": …}`. No answer may contain
input, a stack trace or a cause.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import hdrs, web

from inngest_outbox import errors
from inngest_outbox.web.server.answers import json_answer

STATUS: dict[type[errors.ServiceError], int] = {
    errors.InvalidJsonError: 400,
    errors.InvalidFieldError: 400,
    errors.DocumentNameRequiredError: 400,
    errors.DocumentNameInvalidError: 400,
    errors.IdempotencyKeyInvalidError: 400,
    errors.SignInFailedError: 400,
    errors.MalformedRequestError: 400,
    errors.SessionRequiredError: 401,
    errors.EventKeyRequiredError: 401,
    errors.MetricsTokenRequiredError: 401,
    errors.CrossSiteRequestError: 403,
    errors.OperatorRequiredError: 403,
    errors.SenderNotAllowedError: 403,
    errors.NotFoundError: 404,
    errors.DocumentNotFoundError: 404,
    errors.MethodNotAllowedError: 405,
    errors.EventLeftError: 409,
    errors.BodyTimeoutError: 408,
    errors.HeadTimeoutError: 408,
    errors.BodyTooLargeError: 413,
    errors.JsonRequiredError: 415,
    errors.EncodingRefusedError: 415,
    errors.ExpectationFailedError: 417,
    errors.IdempotencyKeyReusedError: 422,
    errors.TooManyPendingError: 429,
    errors.RateLimitedError: 429,
    errors.HeadTooLargeError: 431,
    errors.StorageNotConfiguredError: 503,
    errors.StorageUnavailableError: 503,
    errors.ProviderUnavailableError: 503,
    errors.OutboxFullError: 503,
    errors.OutboxUnavailableError: 503,
}
INTERNAL_ERROR = "internal_error"
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT")
_REFUSALS: dict[type[web.HTTPException], type[errors.RefusedError]] = {
    web.HTTPNotFound: errors.NotFoundError,
    web.HTTPExpectationFailed: errors.ExpectationFailedError,
}
# Codes that no endpoint raises: for requests that can't be parsed, and for faults.
SERVER_CODES = {
    **{
        kind.code: (STATUS[kind], str(kind()))
        for kind in (
            errors.MalformedRequestError,
            errors.ExpectationFailedError,
            errors.HeadTimeoutError,
            errors.HeadTooLargeError,
        )
    },
    INTERNAL_ERROR: (500, "Something failed here. The request id tells us what."),
}


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
    if isinstance(error, errors.MethodNotAllowedError):
        response.headers[hdrs.ALLOW] = ", ".join(error.allowed)
    if isinstance(error, errors.EncodingRefusedError):
        response.headers[hdrs.ACCEPT_ENCODING] = "identity"
    return response


def refusal_of(error: web.HTTPException) -> errors.RefusedError:
    """The refusal for an error of aiohttp: an unknown path, a wrong method, an unknown Expect."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        return errors.MethodNotAllowedError(allowed=sorted(error.allowed_methods))
    refusal = _REFUSALS.get(type(error), errors.MalformedRequestError)
    return refusal()


def internal_error_response() -> web.Response:
    """The answer to a fault of the service."""
    status, sentence = SERVER_CODES[INTERNAL_ERROR]
    return _response(status, INTERNAL_ERROR, sentence)


def _response(status: int, code: str, sentence: str) -> web.Response:
    return json_answer(ErrorAnswer("error", code, sentence), status=status)
