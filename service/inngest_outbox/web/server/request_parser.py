"""Parses the requests of one connection within bounds that hold for anonymous clients too.

aiohttp limits each line of a head but not the head. After a fault it keeps parsing and keeps an
error for each piece. Here a connection buffers at most one head and the framing of one body, and
nothing is parsed after the first fault.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http import HttpRequestParser, HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestPayloadError, _ErrInfo

_BUFFER_BYTES = 64 * 1024
# Request line and headers together, and each line of them.
HEAD_BYTES = 64 * 1024
HEADER_BYTES = 32 * 1024
# The chunk sizes, extensions and trailers of a chunked body have so many bytes, and one more for
# each so many of the body: a tiny chunk costs as much as a large one.
FRAMING_BYTES = 16 * 1024
BODY_PER_FRAMING = 16
# Heads and chunked bodies are parsed in pieces: what frames a body counts before it costs much.
PIECE_BYTES = 4 * 1024
MAX_PIPELINED = 2
# Some clients end a body with an empty line: no head has begun with it.
_LINE_END = b"\r\n"
_HEAD_END = b"\r\n\r\n"

_VERSIONS = (HttpVersion11, HttpVersion10)

Parsed = list[tuple[RawRequestMessage | _ErrInfo, StreamReader]]


class HeadSizeError(HttpProcessingError):
    """The head has more bytes than the limit."""


class FramingSizeError(HttpProcessingError):
    """The framing of a chunked body has more bytes than the limit."""


class TransferCodingError(HttpProcessingError):
    """The body has a transfer coding beside `chunked`, which the service does not decode."""


class VersionError(HttpProcessingError):
    """The request says that it is in a version of HTTP beside 1.0 and 1.1."""


class BoundedParser(HttpRequestParser):
    """Parses requests. It never raises: a fault is its last message.

    `head_bytes` is the size of a head that has begun and is not complete. `has_ended` is true after
    a fault and after `end()`. A request for another protocol is answered and closes the connection.
    """

    __slots__ = (
        "_body",
        "_chunked_bytes",
        "_connection",
        "_held",
        "_is_chunked",
        "has_ended",
        "head_bytes",
    )

    def __init__(self, protocol: web.RequestHandler, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            protocol,
            loop,
            _BUFFER_BYTES,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            payload_exception=RequestPayloadError,
            auto_decompress=False,
        )
        self._connection = protocol
        self.head_bytes = 0
        self._body: StreamReader = EMPTY_PAYLOAD
        self._chunked_bytes = 0
        self._is_chunked = False
        self._held = b""
        self.has_ended = False

    def end(self) -> None:
        """Parse nothing more."""
        self.has_ended = True

    def feed_data(self, data: bytes, *_: Any) -> tuple[Any, bool, bytes]:
        """The requests whose heads `data` completes; never an upgraded protocol."""
        parsed: Parsed = []
        if self._held:
            data, self._held = self._held + data, b""
        at = 0
        while not self.has_ended:
            if self._must_wait(len(parsed)):
                self._held = data[at:]
                break
            try:
                end = self._end_of_part(data, at)
                parsed += self._feed(data[at:end])
                at = end
            except HttpProcessingError as error:
                parsed += self._fault(error)
            if at == len(data):
                break
        return parsed, False, b""

    def _must_wait(self, parsed: int) -> bool:
        """True while data wait until the handler has read chunks, or has answered requests."""
        if self._body.is_eof():
            return parsed + len(self._connection._messages) >= MAX_PIPELINED  # noqa: SLF001
        return self._is_chunked and self._connection._reading_paused  # noqa: SLF001

    def _end_of_part(self, data: bytes, at: int) -> int:
        """The end of the part of `data` that may be parsed now: one request's at most."""
        if not self._body.is_eof():
            return min(len(data), at + PIECE_BYTES) if self._is_chunked else len(data)
        room = HEAD_BYTES - self.head_bytes
        if at < len(data) and not room:
            raise HeadSizeError
        end = min(len(data), at + room, at + PIECE_BYTES)
        head_end = data.find(_HEAD_END, at, end) + len(_HEAD_END)
        is_one = end == len(data) and data.find(_HEAD_END, head_end) < 0
        return end if is_one or head_end < len(_HEAD_END) else head_end

    def _feed(self, part: bytes) -> Parsed:
        in_head, had_bytes = self._body.is_eof(), self._body.total_bytes
        in_chunks = self._is_chunked and not in_head
        messages, upgraded, _ = super().feed_data(part)
        parsed: Parsed = list(messages)
        if parsed:
            self._begin_body(parsed)
        elif in_chunks:
            self._count_framing(len(part))
        if self._body.is_eof():
            arrived = self._body.total_bytes
            end = arrived - had_bytes
            if parsed or in_chunks:
                # The last end in the part is that of the last head, or of the chunks behind it.
                end = part.rfind(_HEAD_END) + len(_HEAD_END)
                end += 0 if self._is_chunked else arrived
            if end < len(part):
                self._count_head(part[end:])
        if upgraded:
            self.end()
        return parsed

    def _fault(self, error: HttpProcessingError) -> Parsed:
        self.end()
        if self._body.is_eof():
            return [(_ErrInfo(400, error, ""), EMPTY_PAYLOAD)]
        # The request is with its handler, which learns of the fault when it reads the body. The
        # exception comes before the end, so that the body is never taken as complete.
        self._body.set_exception(RequestPayloadError("The body is not framed as HTTP."))
        self._body.feed_eof()
        return []

    def _begin_body(self, messages: Parsed) -> None:
        """Begin the body of the last message."""
        message, body = messages[-1]
        assert isinstance(message, RawRequestMessage)  # noqa: S101  (faults are raised)
        if message.version not in _VERSIONS:
            raise VersionError(message="Only HTTP/1.0 and HTTP/1.1 are understood here.")
        if message.chunked:
            _check_coding(message)
        self._body = body
        self.head_bytes = self._chunked_bytes = 0
        self._is_chunked = message.chunked
        if message.upgrade:
            messages[-1] = (message._replace(should_close=True), body)

    def _count_head(self, part: bytes) -> None:
        if self.head_bytes or part.strip(_LINE_END):
            self.head_bytes += len(part)

    def _count_framing(self, size_bytes: int) -> None:
        self._chunked_bytes += size_bytes
        body_bytes = self._body.total_bytes
        # A paused parser holds the last piece back.
        allowed = FRAMING_BYTES + PIECE_BYTES + body_bytes // BODY_PER_FRAMING
        if self._chunked_bytes - body_bytes > allowed:
            raise FramingSizeError


def _check_coding(message: RawRequestMessage) -> None:
    coding = message.headers.get(hdrs.TRANSFER_ENCODING, "")
    if coding.lower() != "chunked":
        raise TransferCodingError(message="Only chunked is a transfer coding here.")
