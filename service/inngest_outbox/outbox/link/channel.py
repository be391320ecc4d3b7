"""A stream of messages over a socket: each has its length before it, many go out in one write.

The invariant: a message is whole, bounded and understood, or the connection ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar, cast

import msgspec
import structlog

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_HEAD_BYTES = 4
NOT_UNDERSTOOD = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")

log = structlog.get_logger(__name__)
_encode = msgspec.msgpack.Encoder().encode


class Coalescer(Generic[T]):
    """Calls `hand_over` at the end of a turn with all that was added in it, in its order."""

    def __init__(self, hand_over: Callable[[Sequence[T]], None]) -> None:
        self._hand_over = hand_over
        self._items: list[T] = []

    def add(self, item: T) -> None:
        """Hand `item` over soon."""
        if not self._items:
            asyncio.get_running_loop().call_soon(self.end)
        self._items.append(item)

    def end(self) -> None:
        """Hand over now what was added; nothing without any."""
        items, self._items = self._items, []
        if items:
            self._hand_over(items)


class Listener(Protocol):
    """The process at this end of a channel."""

    def received(self, message: memoryview) -> None:
        """A message arrived; the view is valid during this call only.

        Raises one of NOT_UNDERSTOOD for one that is not, which ends the connection.
        """
        ...

    def lost(self) -> None:
        """The connection has ended."""
        ...


class Channel(asyncio.Protocol):
    """One end of a connection. Messages that `send` gets in one turn share a write.

    With `waits_for_reader` nothing is read while the other side reads slowly, so that answers don't
    pile up. One end of a connection may do so: two would wait for each other for ever.
    """

    def __init__(
        self, listener: Callable[[Channel], Listener], *, waits_for_reader: bool = False
    ) -> None:
        self._make_listener = listener
        self._waits_for_reader = waits_for_reader
        self._listener: Listener | None = None
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._out: Coalescer[bytes] = Coalescer(self._write)

    def send(self, message: msgspec.Struct) -> None:
        """Send a message soon; nothing happens when the connection has ended."""
        self._out.add(_encode(message))

    def send_now(self, message: msgspec.Struct) -> None:
        """Send a message, after those that wait; nothing when the connection has ended."""
        self.send(message)
        self._out.end()

    def close(self) -> None:
        """End the connection when what was sent has left."""
        self._out.end()
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to listen."""
        self._transport = cast("asyncio.Transport", transport)
        self._listener = self._make_listener(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the listener."""
        del exc
        self._transport = None
        if self._listener:
            self._listener.lost()

    def pause_writing(self) -> None:
        """The other side reads slowly: what it sends waits, where this end waits for it."""
        if self._transport and self._waits_for_reader:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The other side has read on."""
        if self._transport and self._waits_for_reader:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Hand over whole messages."""
        self._received += data
        taken = self._take()
        del self._received[:taken]

    def _take(self) -> int:
        """Hand over the whole messages that were received; returns how many bytes they were."""
        start = 0
        with memoryview(self._received) as view:
            while (body := start + _HEAD_BYTES) <= len(view):
                size = int.from_bytes(view[start:body], "big")
                if size > _MAX_MESSAGE_BYTES:
                    return self._refuse(len(view), f"a message of {size} bytes")
                if body + size > len(view):
                    break
                start = body + size
                try:
                    if self._listener:
                        self._listener.received(view[body:start])
                except NOT_UNDERSTOOD as error:
                    return self._refuse(len(view), str(error))
        return start

    def _refuse(self, size: int, reason: str) -> int:
        log.warning("link_message_refused", reason=reason)
        self._listener, lost = None, self._listener
        if lost:
            lost.lost()
        self.abort()
        return size

    def _write(self, bodies: Sequence[bytes]) -> None:
        if self._transport:
            parts = (
                part for body in bodies for part in (len(body).to_bytes(_HEAD_BYTES, "big"), body)
            )
            self._transport.write(b"".join(parts))
