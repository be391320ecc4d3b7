"""The HTTP server under the application: what is no HTTP request is answered in the one form too.

aiohttp answers such requests before any middleware, in plain text, and both its answer and its log
line quote what came, a piece of a session cookie as well. The invariant: neither holds input here.
A stop lets requests that have begun arrive whole. Of a crowd of posts some are at work and the
others wait in their order, so that each holds no more than what aiohttp has read of it; but for a
moment only, since those at work may be waiting for a neighbour that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import structlog
import uuid_utils
from aiohttp import hdrs, web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong

from service.web.errors import (
    http_error_response,
    internal_error_response,
    malformed_response,
    unknown_method_response,
)
from service.web.middleware import REQUEST_ID, arrived_at_key
from service.web.security_headers import security_headers

MAX_HEADER_BYTES = 32 * 1024
MAX_POSTS_AT_WORK = 256
MAX_WAIT_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 75.0  # longer than proxies keep theirs; also what a request's head may take

log = structlog.get_logger(__name__)


class HttpServer(web.AppRunner):
    """Runs an application; a header may have 32 KiB, which chunked session cookies need."""

    def __init__(self, app: web.Application, *, shutdown_seconds: float) -> None:
        super().__init__(
            app,
            access_log=None,
            max_field_size=MAX_HEADER_BYTES,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            shutdown_timeout=shutdown_seconds,
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, made.request_factory, **self._kwargs)


class _Server(web.Server):
    """Makes a protocol for each connection."""

    def __init__(self, handler: Any, request_factory: Any, **options: Any) -> None:
        at_work = asyncio.Semaphore(MAX_POSTS_AT_WORK)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            request[arrived_at_key] = time.perf_counter()
            is_counted = _is_whole_post(request) and await _waited_for(at_work)
            try:
                return await handler(request)  # type: ignore[no-any-return]
            except web.HTTPException as error:
                # Raised outside of every middleware, for an Expect that is not known.
                return _marked(http_error_response(error))
            finally:
                if is_counted:
                    at_work.release()

        super().__init__(handle, request_factory=request_factory, **options)

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Read; while the server stops, the rest of a body under way too, which aiohttp drops."""
        stopping = self._close or self._force_close
        if stopping and self._request_in_progress and self._parser is not None:
            with contextlib.suppress(HttpProcessingError):
                self._parser.feed_data(data)
            return
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what failed outside of the application; it closes the connection."""
        del message  # quotes the request
        response = _answer_to(status, exc)
        _marked(response).headers.update(security_headers(secure=False))
        request_id = response.headers[REQUEST_ID]
        if status >= web.HTTPInternalServerError.status_code:
            log.error("request_failed", request_id=request_id, exc_info=exc)
        else:
            log.info("malformed_request", request_id=request_id, reason=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("An answer was begun already.")
        response.force_close()
        return response


def _is_whole_post(request: web.BaseRequest) -> bool:
    """Whether nothing of the post is still to come: a slow client keeps nobody waiting."""
    return request.method == hdrs.METH_POST and request.content.is_eof()


async def _waited_for(slots: asyncio.Semaphore) -> bool:
    """Whether there was a slot in time, which is then held."""
    if not slots.locked():
        return await slots.acquire()
    try:
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            return await slots.acquire()
    except TimeoutError:
        return False


def _answer_to(status: int, exc: BaseException | None) -> web.Response:
    if status >= web.HTTPInternalServerError.status_code:
        return internal_error_response()
    if isinstance(exc, BadHttpMethod):
        return unknown_method_response()
    return malformed_response(too_large=isinstance(exc, LineTooLong))


def _marked(response: web.Response) -> web.Response:
    response.headers[REQUEST_ID] = str(uuid_utils.uuid7())
    return response
