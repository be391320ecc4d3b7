"""One connection of a front process to the store process, and its calls under way.

The invariant: a call is sent once at most, and answered once: by the store, or by the end of the
connection.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from service.errors import OutboxUnavailableError
from service.outbox.event import Event
from service.outbox.keys import IdempotencyKey
from service.outbox.link.channel import Channel
from service.outbox.link.faults import from_fault
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
    ToFront,
)
from service.outbox.link.methods import Encoded
from service.outbox.receipt import Receipt

_MANY_BYTES = 1024 * 1024  # of events in one message

_decode = msgspec.msgpack.Decoder(ToFront).decode


class StoreSession:
    """One connection to the store: its calls under way."""

    def __init__(
        self, channel: Channel, heard: Callable[[StoreSession, Status | None], None]
    ) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()  # reading it is a system call each time
        self._heard = heard
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._appends = Gathering(self._send_appends)
        self._append_bytes = 0
        self._has_heard = True
        self.is_over = asyncio.Event()
        self.is_closing = False  # another store takes its place

    def is_silent(self) -> bool:
        """Whether nothing has arrived since this was last asked."""
        silent, self._has_heard = not self._has_heard, False
        return silent and not self.is_over.is_set()

    def ask(self, method: str, arguments: bytes) -> asyncio.Future[Encoded]:
        """Send a call; its encoded result."""
        number, answer = self._expect()
        self._channel.send(Call(number, method, msgspec.Raw(arguments)))
        return answer

    def append(self, event: Event, key: IdempotencyKey | None) -> asyncio.Future[Receipt]:
        """Send an event soon; its receipt."""
        number, answer = self._expect()
        self._appends.add(NewEvent(number, event, key))
        self._append_bytes += len(event.payload)
        if self._append_bytes > _MANY_BYTES:
            self._appends.end()
        return answer

    def received(self, message: memoryview) -> None:
        """Resolve the call that the message answers."""
        self._has_heard = True
        match _decode(message):
            case Result(number, value):
                if (answer := self._waiting(number)) is not None:
                    answer.set_result(bytes(value))
            case Receipts(receipts):
                for number, receipt in receipts:
                    if (answer := self._waiting(number)) is not None:
                        answer.set_result(receipt)
            case Fault() as fault:
                if (answer := self._waiting(fault.number)) is not None:
                    answer.set_exception(from_fault(fault))
            case Status() as status:
                self._heard(self, status)
            case Closing():
                self.is_closing = True
                self._appends.end()
                self._channel.send(Goodbye())
                self._heard(self, None)
                self.is_over.set()

    def lost(self) -> None:
        """Fail the calls under way: they may have been carried out or not."""
        self._heard(self, None)
        self.is_over.set()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(OutboxUnavailableError(retry_after_seconds=1))
        self._asked.clear()

    def _expect(self) -> tuple[int, asyncio.Future[Any]]:
        number = next(self._numbers)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._asked[number] = answer
        return number, answer

    def _send_appends(self, events: Sequence[NewEvent]) -> None:
        self._append_bytes = 0
        self._channel.send_now(Appends(events))

    def _waiting(self, number: int) -> asyncio.Future[Any] | None:
        answer = self._asked.pop(number, None)
        return None if answer is None or answer.done() else answer
