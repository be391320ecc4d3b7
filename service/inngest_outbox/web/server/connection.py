"""One connection: a head in time, a JSON answer to what can't be parsed, a stop without delay.

A client that does not read its answers is dropped. aiohttp answers a request that can't be parsed
in plain text, before any middleware, and quotes it in the answer and in the log, for example a
session cookie. The invariant: here neither contains input.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
import uuid_utils
from aiohttp import hdrs, web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestPayloadError, _ErrInfo

from inngest_outbox.errors import (
    HeadTimeoutError,
    HeadTooLargeError,
    MalformedRequestError,
    MethodNotAllowedError,
    RefusedError,
)
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.web.server.answers import REQUEST_ID
from inngest_outbox.web.server.body_budget import Share
from inngest_outbox.web.server.errors import METHODS, error_response, internal_error_response
from inngest_outbox.web.server.request_parser import (
    MAX_PIPELINED,
    PIECE_BYTES,
    BoundedParser,
    HeadSizeError,
)
from inngest_outbox.web.server.security_headers import SERVER, security_headers

_SERVER_FAULT = web.HTTPInternalServerError.status_code

_TOO_MANY = "too_many_connections"
# aiohttp has no class of its own for this fault.
_TOO_MANY_HEADERS = "Too many headers"
_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)


class HeadSecondsError(HttpProcessingError):
    """The head did not arrive in time."""


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """The rules that all connections of a server share.

    `admit` says whether a connection of a peer may begin, `parses_now` whether a large piece may be
    parsed in this turn of the event loop.
    """

    recorder: Recorder
    head_seconds: float
    unread_seconds: float
    admit: Callable[[str], bool]
    parses_now: Callable[[Callable[[], None]], bool]


class Connection(web.RequestHandler):
    """A connection whose request heads are bounded in size and time.

    `is_pipelining` is true once the client has sent a request before it had all answers, and
    `has_sent_much` once it has sent more than a few small requests at once. `work` is cancelled
    when the client has gone. `body_share` and `arrived_at`, seconds of the monotonic clock, are
    those of the request at work.
    """

    __slots__ = (
        "_head_timer",
        "_is_ending",
        "_late",
        "_requests",
        "_rules",
        "_unread_timer",
        "arrived_at",
        "body_share",
        "has_sent_much",
        "is_pipelining",
        "work",
    )

    def __init__(
        self,
        server: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        rules: ConnectionRules,
        **options: Any,
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._requests: BoundedParser | None = BoundedParser(self, loop)
        self._parser = self._requests
        # The parser pauses at the number of requests at which the connection stops reading.
        self._max_msg_queue_size = MAX_PIPELINED
        self._msg_queue_resume_size = MAX_PIPELINED // 2
        self._rules = rules
        self.work: asyncio.Task[Any] | None = None
        self._late = b""
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._is_ending = False
        self.is_pipelining = self.has_sent_much = False
        self.arrived_at: float | None = None
        self.body_share: Share | None = None

    def end_request(self) -> None:
        """The body of the request at work is no longer there."""
        if self.body_share is not None:
            self.body_share.release()
            self.body_share = None

    def is_last_answer(self, *, lingers: bool) -> bool:
        """True where the answer at work is the last one: the connection ends, or only `lingers`."""
        return (lingers or self._is_ending) and not self._messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or end at once where there are too many connections."""
        if not self._rules.admit(peer_of(transport)):
            self._rules.recorder.count("refused", code=_TOO_MANY)
            transport.abort()  # type: ignore[attr-defined]
            return
        # Writing pauses at the first byte that the client does not take, so that it has its time.
        transport.set_write_buffer_limits(0)  # type: ignore[attr-defined]
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Read data; a large piece waits for a turn of the event loop with time for it."""
        if len(data) <= PIECE_BYTES and not self._late:
            self._receive(data)
            return
        self.has_sent_much = True
        if self._late or not self._rules.parses_now(self._receive_late):
            self._late += data
            if self.transport is not None:
                self.transport.pause_reading()
        else:
            self._receive(data)

    def _receive_late(self) -> None:
        data, self._late = self._late, b""
        self._receive(data)
        if self.transport is not None and not (self._reading_paused or self._buffer_paused):
            self.transport.resume_reading()

    def _receive(self, data: bytes) -> None:
        requests = self._requests
        if requests is None:  # the client has left
            return
        # During a stop, the rest of a body is read too, which aiohttp would drop.
        if self._is_ending:
            if self._request_in_progress:
                requests.feed_data(data)
            return
        super().data_received(data)
        if len(self._messages) + self._request_in_progress > 1:
            self.is_pipelining = True
        if requests.head_bytes:
            if self._head_timer is None:
                after = self._rules.head_seconds
                self._head_timer = self._loop.call_later(after, self._end_head)
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if requests.has_ended:
            self.close()  # not before the requests that came with a fault are known

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timers, drop the parser, which refers to this connection, and tell who asked."""
        _end(self._head_timer)
        _end(self._unread_timer)
        if self.work is not None:
            self.work.cancel()
        self._requests = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Drop a client that leaves its answers unread for too long."""
        super().pause_writing()
        assert self.transport is not None  # noqa: S101  (it writes)
        after = self._rules.unread_seconds
        self._unread_timer = self._loop.call_later(after, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        _end(self._unread_timer)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002
        """Read on after a pause. aiohttp asks after each body, and then parses nothing."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def close(self) -> None:
        """Read no further request. Those that were read are answered."""
        self._is_ending = True
        if not self._messages:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109
        """Wait for all requests that were read, but not for the rest of a refused body."""
        self._is_ending = True
        if (task := self._task_handler) and await self._is_at_work():
            await asyncio.wait([task], timeout=timeout)
        if task:
            task.cancel()  # aiohttp would wait twice as long
        await super().shutdown(timeout)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to an error outside of the application; it closes the connection."""
        del message  # quotes the request
        if request.writer.output_size > 0:
            raise ConnectionError("An answer has begun already.") from exc
        if status >= _SERVER_FAULT:
            response, request_id = _fault_answer(exc)
        else:
            response, request_id = _malformed_answer(exc, self._rules.recorder)
        return last_answer(response, request_id)

    def log_exception(self, *args: Any, **details: Any) -> None:
        """Log an exception, except for a body that breaks after its request was answered."""
        if not isinstance(details.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **details)

    async def _is_at_work(self) -> bool:
        """True while requests that were read wait or run; one begins a turn after it is taken."""
        for _ in range(2):
            if self._request_in_progress or self._messages:
                return True
            await asyncio.sleep(0)
        return False

    def _end_head(self) -> None:
        self._head_timer = None
        assert self._requests is not None  # noqa: S101  (the timer ends with the connection)
        self._requests.end()
        self._messages.append((_ErrInfo(408, HeadSecondsError(), ""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def peer_of(transport: asyncio.BaseTransport) -> str:
    """The address of the other side, empty where it is gone; one text for each peer."""
    name = transport.get_extra_info("peername")
    return sys.intern(str(name[0])) if isinstance(name, tuple) else ""


def last_answer(response: web.Response, request_id: str) -> web.Response:
    """The answer with what the application adds to its own; it closes the connection."""
    response.headers.update(security_headers(secure=False))
    response.headers.update({REQUEST_ID: request_id, hdrs.SERVER: SERVER})
    response.force_close()
    return response


def _end(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _fault_answer(fault: BaseException | None) -> tuple[web.Response, str]:
    """The answer to a fault of the service, and the id that the log has too."""
    request_id = str(uuid_utils.uuid7())
    _log.error("request_failed", request_id=request_id, exc_info=fault)
    return internal_error_response(), request_id


def _malformed_answer(fault: BaseException | None, recorder: Recorder) -> tuple[web.Response, str]:
    """The answer to what can't be parsed, counted, and the id that the log has too."""
    request_id, refusal = str(uuid_utils.uuid7()), _refusal(fault)
    recorder.count("refused", code=refusal.code)
    _log.info("malformed_request", request_id=request_id, reason=type(fault).__name__)
    return error_response(refusal), request_id


def _refusal(fault: BaseException | None) -> RefusedError:
    """The refusal for what the parser found."""
    if isinstance(fault, HeadSecondsError):
        return HeadTimeoutError()
    if isinstance(fault, BadHttpMethod):
        return MethodNotAllowedError(allowed=METHODS)
    if isinstance(fault, LineTooLong | HeadSizeError) or _TOO_MANY_HEADERS in str(fault):
        return HeadTooLargeError()
    return MalformedRequestError()


async def while_connected(request: web.Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of `work`. It is cancelled when the client goes: that raises ConnectionError."""
    task = asyncio.ensure_future(work)
    connection = request.protocol if isinstance(request.protocol, Connection) else None
    if connection:
        connection.work = task
    try:
        return await task
    except asyncio.CancelledError:
        if request.transport is None:
            raise ConnectionError("The client has gone.") from None
        raise
    finally:
        if connection:
            connection.work = None
