"""The store process' side: carries out the calls of front processes, beside one another.

A front that is slow to read is not read from, so it blocks no other front. The invariant: a call
that was received is answered before its connection ends, unless the process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import structlog

from service.errors import OutboxUnavailableError
from service.identity.scopes import Scopes
from service.outbox.link.channel import Channel
from service.outbox.link.faults import to_fault
from service.outbox.link.gathering import Gathering
from service.outbox.link.messages import (
    Appends,
    Call,
    Closing,
    Fault,
    Goodbye,
    NewEvent,
    Receipts,
    Result,
    Status,
    ToStore,
)
from service.outbox.link.methods import Invoke, Method, methods_of
from service.outbox.operator_ports import AuditTrail, Positions, Samples
from service.outbox.parts import StoreParts
from service.outbox.ports import Inspector, Intake, Repairs
from service.outbox.receipt import Receipt

_STATUS_SECONDS = 0.25
_BEAT_LOOKS = 4  # an unchanged status is sent again, to show that the store is alive
_DRAIN_SECONDS = 10.0

_Stored = asyncio.Future[Sequence[Receipt]]

log = structlog.get_logger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ToStore).decode

# Later Pythons remove the path of a socket that they stop listening at; the next store process
# listens at the same one.
_KEEP_PATH: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class OutboxServer:
    """Serves the parts of an outbox to front processes."""

    def __init__(self, outbox: StoreParts, status: Callable[[], Status]) -> None:
        self._intake = outbox.intake
        self._handlers = _handlers(outbox)
        self._saving, _ = self._handlers["Scopes.save_scope"]
        self._status = status
        self._told = status()
        self._fronts: set[_Front] = set()
        self._calls: set[asyncio.Future[Any]] = set()
        self._is_closing = False

    def connected(self, channel: Channel) -> _Front:
        """A front has connected."""
        front = _Front(channel, self)
        self._fronts.add(front)
        channel.send(Closing() if self._is_closing else self._told)
        return front

    def disconnected(self, front: _Front) -> None:
        """A front is gone. Its calls still run to their end."""
        self._fronts.discard(front)

    def start(self, channel: Channel, call: Call) -> None:
        """Carry out a call and answer it."""
        task = asyncio.create_task(self._answer(channel, call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def append(self, new: NewEvent, front: _Front) -> None:
        """Append an event and tell `front` what became of it."""
        stored = self._intake.start((new.event,), (new.key,))
        self._calls.add(stored)
        stored.add_done_callback(partial(self._appended, front, new.number))

    async def tell_status(self) -> None:
        """Tell every front how the store is, soon after it changes and often, until cancelled."""
        while True:
            for _ in range(_BEAT_LOOKS):
                self._tell()
                await asyncio.sleep(_STATUS_SECONDS)
            for front in self._fronts:
                front.channel.send(self._told)

    async def close(self) -> None:
        """Take no more calls, answer those that are here, then let go of the fronts."""
        self._is_closing = True
        for front in self._fronts:
            front.channel.send(Closing())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                for front in list(self._fronts):
                    await front.is_done.wait()
                if self._calls:
                    await asyncio.wait(self._calls)
        for front in list(self._fronts):
            front.receipts.end()
            front.channel.close()

    async def _answer(self, channel: Channel, call: Call) -> None:
        channel.send(await self._carried_out(call))

    async def _carried_out(self, call: Call) -> Result | Fault:
        try:
            method, function = self._handlers[call.method]
            arguments = method.decode_arguments(call.arguments)
        except (KeyError, msgspec.DecodeError):
            # A front of another version, while an upgrade replaces it.
            log.warning("unknown_call", method=call.method)
            return to_fault(call.number, OutboxUnavailableError(retry_after_seconds=1))
        try:
            value = msgspec.Raw(_encode(await method.invoke(function, arguments)))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (each has an answer)
            return to_fault(call.number, error)
        if method is self._saving:
            self._tell()  # the front that changed a scope sees the change
        return Result(call.number, value)

    def _appended(self, front: _Front, number: int, stored: _Stored) -> None:
        self._calls.discard(stored)
        front.stored(number, stored)

    def _tell(self) -> None:
        status = self._status()
        if status != self._told:
            self._told = status
            for front in self._fronts:
                front.channel.send(status)


class _Front:
    """One front process that is connected."""

    def __init__(self, channel: Channel, server: OutboxServer) -> None:
        self.channel = channel
        self.is_done = asyncio.Event()
        self.receipts = Gathering(self._send_receipts)
        self._server = server

    def received(self, message: memoryview) -> None:
        """A call, or the front's last word."""
        match _decode(bytes(message)):
            case Call() as call:
                self._server.start(self.channel, call)
            case Appends(events):
                for event in events:
                    self._server.append(event, self)
            case Goodbye():
                self.is_done.set()

    def stored(self, number: int, stored: _Stored) -> None:
        """Answer an append that has ended."""
        error = OutboxUnavailableError() if stored.cancelled() else stored.exception()
        if error is None:
            [receipt] = stored.result()
            self.receipts.add((number, receipt))
        else:
            self.channel.send(to_fault(number, error))

    def lost(self) -> None:
        """The front is gone."""
        self.is_done.set()
        self._server.disconnected(self)

    def _send_receipts(self, receipts: Sequence[tuple[int, Receipt]]) -> None:
        self.channel.send_now(Receipts(receipts))


@contextlib.asynccontextmanager
async def serve_outbox(
    listening: socket.socket, outbox: StoreParts, status: Callable[[], Status]
) -> AsyncIterator[None]:
    """Serve `outbox` to the fronts that connect to `listening`, a Unix socket.

    `status` is asked often. Leaving the context answers the calls that have arrived.
    """
    server = OutboxServer(outbox, status)
    listener = await asyncio.get_running_loop().create_unix_server(
        lambda: Channel(server.connected, waits_for_reader=True), sock=listening, **_KEEP_PATH
    )
    telling = asyncio.create_task(server.tell_status(), name="tell-fronts")
    try:
        yield
    finally:
        telling.cancel()
        listener.close()
        await server.close()


def _handlers(outbox: StoreParts) -> dict[str, tuple[Method, Invoke]]:
    parts: tuple[tuple[type, Any], ...] = (
        (Intake, outbox.intake),
        (Inspector, outbox.inspector),
        (Repairs, outbox.repairs),
        (Positions, outbox.positions),
        (AuditTrail, outbox.trail),
        (Samples, outbox.samples),
        (Scopes, outbox.settings),
    )
    return {
        method.name: (method, getattr(part, name))
        for port, part in parts
        for name, method in methods_of(port).items()
    }
