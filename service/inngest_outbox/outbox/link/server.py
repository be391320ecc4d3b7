"""The side of the link that owns an outbox: carries out the calls of others, beside one another.

A caller that is slow to read is not read from, so it blocks no other one. The invariant: a call
that was received is answered before its connection ends, unless the process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.outbox.keys import Receipt
from inngest_outbox.outbox.link.channel import NOT_UNDERSTOOD, Channel, Coalescer
from inngest_outbox.outbox.link.messages import (
    PROTOCOL,
    Appends,
    Call,
    Closing,
    Fault,
    Goodbye,
    Hello,
    NewEvent,
    Receipts,
    Result,
    Status,
    ToOwner,
    to_fault,
)
from inngest_outbox.outbox.link.methods import Invoke, Method, methods_of
from inngest_outbox.outbox.parts import StoreIntake, StoreParts
from inngest_outbox.outbox.ports import AuditTrail, Inspector, Intake, Positions, Repairs, Samples

_STATUS_SECONDS = 0.25
_BEAT_LOOKS = 4  # an unchanged status is sent again, to show that the owner is alive
_DRAIN_SECONDS = 10.0
_SAVES = "Scopes.save_scope"

_Stored = asyncio.Future[Sequence[Receipt]]

log = structlog.get_logger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ToOwner).decode

# Later Pythons remove the path of a socket that they stop listening at; the next store process
# listens at the same one.
_KEEP_PATH: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


@dataclass(frozen=True, slots=True)
class ServedPart:
    """An implementation of a port. In calls the port is `called` so, by default by its own name."""

    port: type
    part: object
    called: str | None = None

    def handlers(self) -> dict[str, tuple[Method, Invoke]]:
        """Its methods by their names in calls."""
        methods = methods_of(self.port, self.called)
        return {one.name: (one, getattr(self.part, name)) for name, one in methods.items()}


def parts_of(outbox: StoreParts) -> list[ServedPart]:
    """The parts of an outbox that front processes call."""
    return [
        ServedPart(Intake, outbox.intake),
        ServedPart(Inspector, outbox.inspector),
        ServedPart(Repairs, outbox.repairs),
        ServedPart(Positions, outbox.positions),
        ServedPart(AuditTrail, outbox.trail),
        ServedPart(Samples, outbox.samples),
        ServedPart(Scopes, outbox.scopes),
    ]


class LinkServer:
    """Serves parts to callers. Events are appended to `intake`, None where there is none."""

    def __init__(
        self,
        parts: Sequence[ServedPart],
        status: Callable[[], Status],
        intake: StoreIntake | None = None,
    ) -> None:
        self._intake = intake
        self._handlers = {name: one for part in parts for name, one in part.handlers().items()}
        self._status = status
        self._told = status()
        self._connected: set[_Caller] = set()
        self._callers: set[_Caller] = set()  # those that have greeted
        self._calls: set[asyncio.Future[Any]] = set()
        self._is_closing = False

    def connected(self, caller: _Caller) -> None:
        """Know a caller that may greet, so that a stop ends its connection too."""
        self._connected.add(caller)

    def greeted(self, caller: _Caller) -> None:
        """Serve a caller that speaks this protocol."""
        self._callers.add(caller)
        caller.channel.send(Closing() if self._is_closing else self._told)

    def disconnected(self, caller: _Caller) -> None:
        """Forget a caller that is gone. Its calls still run to their end."""
        self._connected.discard(caller)
        self._callers.discard(caller)

    def start(self, channel: Channel, call: Call) -> None:
        """Carry out a call and answer it."""
        task = asyncio.create_task(self._answer(channel, call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def append(self, new: NewEvent, caller: _Caller) -> None:
        """Append an event and tell `caller` what became of it."""
        if self._intake is None:
            raise msgspec.ValidationError("an event for a process that stores none")
        stored = self._intake.start((new.event,), (new.key,))
        self._calls.add(stored)
        stored.add_done_callback(partial(self._appended, caller, new.number))

    async def tell_status(self) -> None:
        """Tell every caller the status, soon after it changes and often, until cancelled."""
        while True:
            for _ in range(_BEAT_LOOKS):
                self._tell()
                await asyncio.sleep(_STATUS_SECONDS)
            for caller in self._callers:
                caller.channel.send(self._told)

    async def close(self) -> None:
        """Take no more calls, answer those that are here, then end the connections."""
        self._is_closing = True
        for caller in self._callers:
            caller.channel.send(Closing())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                for caller in list(self._callers):
                    await caller.is_done.wait()
                if self._calls:
                    await asyncio.wait(self._calls)
        for caller in list(self._connected):
            caller.channel.close()

    async def _answer(self, channel: Channel, call: Call) -> None:
        channel.send(await self._carried_out(call))

    async def _carried_out(self, call: Call) -> Result | Fault:
        try:
            method, function = self._handlers[call.method]
            arguments = method.decode_arguments(call.arguments)
        except (KeyError, *NOT_UNDERSTOOD):
            # A caller of another version, while an upgrade replaces it.
            log.warning("unknown_call", method=call.method)
            return to_fault(call.number, OutboxUnavailableError(retry_after_seconds=1))
        try:
            value = msgspec.Raw(_encode(await method.invoke(function, arguments)))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (each has an answer)
            return to_fault(call.number, error)
        if call.method == _SAVES:
            self._tell()  # the front that changed a scope sees the change
        return Result(call.number, value)

    def _appended(self, caller: _Caller, number: int, stored: _Stored) -> None:
        self._calls.discard(stored)
        caller.stored(number, stored)

    def _tell(self) -> None:
        status = self._status()
        if status != self._told:
            self._told = status
            for caller in self._callers:
                caller.channel.send(status)


class _Caller:
    """One process that is connected."""

    def __init__(self, server: LinkServer, channel: Channel) -> None:
        self.channel = channel
        self.is_done = asyncio.Event()
        self.receipts = Coalescer(self._send_receipts)
        self._server = server
        self._is_greeted = False
        server.connected(self)

    def received(self, message: memoryview) -> None:
        """A greeting, then calls and the caller's last word."""
        match _decode(bytes(message)):
            case Hello(protocol):
                self._greet(protocol)
            case _ if not self._is_greeted:
                raise msgspec.ValidationError("a call before a greeting")
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
        """The caller is gone."""
        self.is_done.set()
        self._server.disconnected(self)

    def _greet(self, protocol: int) -> None:
        if protocol == PROTOCOL:
            self._is_greeted = True
            self._server.greeted(self)
            return
        words = f"The service speaks version {PROTOCOL} of its link, the caller version {protocol}."
        self.channel.send(to_fault(0, OutboxUnavailableError(words)))
        self.channel.close()

    def _send_receipts(self, receipts: Sequence[tuple[int, Receipt]]) -> None:
        self.channel.send_now(Receipts(receipts))


@contextlib.asynccontextmanager
async def serve_link(
    listening: socket.socket,
    parts: Sequence[ServedPart],
    status: Callable[[], Status],
    intake: StoreIntake | None = None,
) -> AsyncIterator[None]:
    """Serve `parts` to the processes that connect to `listening`, a Unix socket.

    `status` is asked often. Leaving the context answers the calls that have arrived.
    """
    server = LinkServer(parts, status, intake)
    listener = await asyncio.get_running_loop().create_unix_server(
        lambda: Channel(partial(_Caller, server), waits_for_reader=True),
        sock=listening,
        **_KEEP_PATH,
    )
    telling = asyncio.create_task(server.tell_status(), name="tell-callers")
    try:
        yield
    finally:
        telling.cancel()
        listener.close()
        await server.close()
