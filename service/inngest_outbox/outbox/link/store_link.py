"""A process' connection to the one that owns the outbox.

While the owner is away calls wait for a moment, then fail with OutboxUnavailableError. The
invariant: a call is sent once at most, and answered once: by the owner, or by the end of the
connection. Then it may have been carried out or not, and its caller gets an error that says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt
from inngest_outbox.outbox.link.channel import Channel, Coalescer
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
    ToCaller,
    from_fault,
)
from inngest_outbox.outbox.link.methods import Encoded, Method
from inngest_outbox.supervisor import end

_AWAY = "The store process does not answer."
_FORBIDDEN = (
    "The service runs as another user, and only that user may send it commands. Run this command "
    "as the service's user."
)
_MANY = 2**32  # more than the revisions of one owner
_MANY_BYTES = 1024 * 1024  # of events in one message

log = structlog.get_logger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ToCaller).decode


@dataclass(frozen=True, slots=True)
class LinkPolicy:
    """The patience of calls with an owner that is away, and the pace of the search for it.

    An owner that closes has a successor, which may migrate first: calls wait longer for it. One
    that has said nothing for `silence_seconds` is taken to be away: it hangs. `away` is the
    sentence of a call that was not sent, `lost` that of one whose answer did not come.
    """

    patience_seconds: float = 3.0
    closing_patience_seconds: float = 30.0
    retry_seconds: float = 0.05
    silence_seconds: float = 10.0
    away: str | None = None
    lost: str | None = None


class StoreLink:
    """Calls methods of the process that listens at `path`."""

    def __init__(self, path: str, policy: LinkPolicy | None = None) -> None:
        self._path = path
        self._policy = policy or LinkPolicy()
        self._away = self._policy.away
        self._session: _Session | None = None
        self._sessions = 0
        self._patient_until = asyncio.get_running_loop().time() + self._policy.patience_seconds
        self._changed = asyncio.Event()
        self._last = Status(_AWAY)
        self._channels = weakref.WeakSet[Channel]()

    @property
    def status(self) -> Status:
        """The owner's latest status; with a failure while it is away."""
        if self._session:
            return self._last
        return msgspec.structs.replace(self._last, failure=_AWAY)

    @property
    def scope_revision(self) -> int:
        """Grows when the owner says that a scope was saved, and with every new session."""
        return self._last.scope_revision + self._sessions * _MANY

    async def run(self) -> None:
        """Keep a connection until cancelled. Then none is left, nor one to an owner that closes."""
        try:
            while True:
                await self._keep_session()
                await asyncio.sleep(self._policy.retry_seconds)
        finally:
            for channel in self._channels:
                channel.abort()

    async def wait(self) -> None:
        """Wait for the owner, until it has been away for as long as calls are patient."""
        with contextlib.suppress(TimeoutError):
            while self._session is None:
                changed = self._changed
                async with asyncio.timeout_at(self._patient_until):
                    await changed.wait()

    async def connected(self) -> _Session:
        """Wait for the owner. Raises OutboxUnavailableError when it does not come in time."""
        await self.wait()
        if self._session is None:
            raise OutboxUnavailableError(self._away, retry_after_seconds=1)
        return self._session

    async def call(self, method: Method, arguments: list[object]) -> object:
        """The result of a method. Raises the owner's own errors and OutboxUnavailableError."""
        session = self._session or await self.connected()
        answer = await session.ask(method.name, _encode(arguments))
        try:
            return method.decode_result(answer)
        except msgspec.DecodeError as error:
            # The owner is of another version, while an upgrade replaces this process.
            raise OutboxUnavailableError(retry_after_seconds=1) from error

    async def append(self, event: Event, *, key: IdempotencyKey | None = None) -> Receipt:
        """`Intake.append` of the store; events that come in one turn share a message."""
        session = self._session or await self.connected()
        receipt = session.append(event, key)
        del event, key  # thousands may wait, and the store process has theirs
        return await receipt

    async def _keep_session(self) -> None:
        loop = asyncio.get_running_loop()
        session = _Session(self._heard, self._policy.lost)
        try:
            _, channel = await loop.create_unix_connection(
                lambda: Channel(session.begin), self._path
            )
        except PermissionError:
            self._give_up(_FORBIDDEN)
            return
        except OSError:
            return
        self._channels.add(channel)
        try:
            while not session.is_over.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._policy.silence_seconds):
                        await session.is_over.wait()
                if session.is_silent():
                    log.error("store_process_hangs")
                    channel.abort()
                    return
            if session.refusal:
                self._give_up(session.refusal)
            # An owner that closes answers its calls soon, or hangs.
            loop.call_later(self._policy.closing_patience_seconds, channel.abort)
        finally:
            self._heard(session, None)

    def _give_up(self, why: str) -> None:
        """Let calls fail at once, with `why` where a policy gives them sentences."""
        if self._policy.away:
            self._away = why
            self._patient_until = 0.0
            self._note()

    def _heard(self, session: _Session, status: Status | None) -> None:
        """A status opens a session to callers, no status closes it."""
        if status is not None:
            self._last = status
            self._sessions += self._session is not session
            self._session = session
        elif self._session is session:
            self._session = None
            closing, lost = self._policy.closing_patience_seconds, self._policy.patience_seconds
            now = asyncio.get_running_loop().time()
            self._patient_until = now + (closing if session.is_closing else lost)
        self._note()

    def _note(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Session:
    """One connection to the owner: its calls under way."""

    def __init__(
        self, heard: Callable[[_Session, Status | None], None], lost: str | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()  # reading it is a system call each time
        self._heard = heard
        self._lost = lost
        self._channel: Channel
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._appends = Coalescer(self._send_appends)
        self._append_bytes = 0
        self._has_heard = True
        self.is_over = asyncio.Event()
        self.is_closing = False  # another owner takes its place
        self.refusal = ""  # the owner speaks another protocol

    def begin(self, channel: Channel) -> _Session:
        """Greet the owner at the other end of `channel`."""
        self._channel = channel
        channel.send_now(Hello(PROTOCOL))
        return self

    def is_silent(self) -> bool:
        """True when nothing has arrived since this was last asked."""
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
                self._failed(fault)
            case Status() as status if not self.is_closing:
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
                answer.set_exception(OutboxUnavailableError(self._lost, retry_after_seconds=1))
        self._asked.clear()

    def _failed(self, fault: Fault) -> None:
        if fault.number == 0:
            self.refusal = fault.message
            self.is_over.set()
        elif (answer := self._waiting(fault.number)) is not None:
            answer.set_exception(from_fault(fault))

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


@contextlib.asynccontextmanager
async def open_link(path: str, policy: LinkPolicy | None = None) -> AsyncIterator[StoreLink]:
    """A link to the process that listens at `path`.

    Raises OutboxUnavailableError when it does not answer in time.
    """
    link = StoreLink(path, policy)
    running = asyncio.create_task(link.run(), name="store-link")
    try:
        await link.connected()
        yield link
    finally:
        await end(running)
