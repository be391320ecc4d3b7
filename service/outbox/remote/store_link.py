"""A front process' connection to the store process.

While the store is away calls wait for a moment, then fail with OutboxUnavailableError. The
invariant: a call is sent once at most; when the connection ends, what became of it is unknown, and
its caller is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from service.errors import OutboxUnavailableError
from service.outbox.remote.channel import Channel
from service.outbox.remote.faults import from_fault
from service.outbox.remote.messages import Call, Closing, Fault, Goodbye, Result, Status, ToFront
from service.outbox.remote.methods import Encoded, Method

_AWAY = "The store process does not answer."
_MANY = 2**32  # more than the revisions of one store process

log = structlog.get_logger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ToFront).decode


@dataclass(frozen=True, slots=True)
class LinkPolicy:
    """How long a call waits for a store that is away, and how often the store is looked for.

    A store that has said nothing for `silence_seconds` is taken to be away: it hangs.
    """

    patience_seconds: float = 3.0
    retry_seconds: float = 0.05
    silence_seconds: float = 10.0


class StoreLink:
    """Calls methods of the store process that listens at `path`."""

    def __init__(self, path: str, policy: LinkPolicy | None = None) -> None:
        self._path = path
        self._policy = policy or LinkPolicy()
        self._session: _Session | None = None
        self._sessions = 0
        self._lost_at = asyncio.get_running_loop().time()
        self._changed = asyncio.Event()
        self._last = Status(_AWAY, 0, 0)

    @property
    def status(self) -> Status:
        """The store's latest status; with a failure while it is away."""
        if self._session:
            return self._last
        return msgspec.structs.replace(self._last, failure=_AWAY)

    @property
    def settings_revision(self) -> int:
        """Grows when the store says that a scope was saved, and with every new session."""
        return self._last.settings_revision + self._sessions * _MANY

    async def run(self) -> None:
        """Keep a connection until cancelled."""
        while True:
            with contextlib.suppress(OSError):
                await self._keep_session()
            await asyncio.sleep(self._policy.retry_seconds)

    async def wait(self) -> None:
        """Wait for the store, until it has been away for as long as calls are patient."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._lost_at + self._policy.patience_seconds):
                while self._session is None:
                    await self._changed.wait()

    async def call(self, method: Method, arguments: list[object]) -> object:
        """The result of a method. Raises the store's own errors and OutboxUnavailableError."""
        session = self._session or await self._wait_for_session()
        answer = await session.ask(method.name, _encode(arguments))
        try:
            return method.decode_result(answer)
        except msgspec.DecodeError as error:
            # The store is of another version, while an upgrade replaces this front.
            raise OutboxUnavailableError(retry_after_seconds=1) from error

    async def _wait_for_session(self) -> _Session:
        await self.wait()
        if self._session is None:
            raise OutboxUnavailableError(retry_after_seconds=1)
        return self._session

    async def _keep_session(self) -> None:
        loop = asyncio.get_running_loop()
        sessions: list[_Session] = []

        def listener(channel: Channel) -> _Session:
            sessions.append(_Session(channel, self._heard))
            return sessions[0]

        _, channel = await loop.create_unix_connection(lambda: Channel(listener), self._path)
        session = sessions[0]
        try:
            while not session.is_over.is_set():
                await _wait(session.is_over, self._policy.silence_seconds)
                if session.is_silent():
                    log.error("store_process_hangs")
                    channel.abort()
                    return
        except asyncio.CancelledError:
            channel.abort()
            raise
        finally:
            self._heard(session, None)

    def _heard(self, session: _Session, status: Status | None) -> None:
        """A status opens a session to callers, no status closes it."""
        if status is not None:
            self._last = status
            self._sessions += self._session is not session
            self._session = session
        elif self._session is session:
            self._session = None
            self._lost_at = asyncio.get_running_loop().time()
        self._changed.set()
        self._changed = asyncio.Event()


class _Session:
    """One connection to the store: its calls under way."""

    def __init__(self, channel: Channel, heard: Callable[[_Session, Status | None], None]) -> None:
        self._channel = channel
        self._heard = heard
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Encoded]] = {}
        self._has_heard = True
        self.is_over = asyncio.Event()

    def is_silent(self) -> bool:
        """Whether nothing has arrived since this was last asked."""
        silent, self._has_heard = not self._has_heard, False
        return silent and not self.is_over.is_set()

    def ask(self, method: str, arguments: bytes) -> asyncio.Future[Encoded]:
        """Send a call; its encoded result."""
        number = next(self._numbers)
        answer: asyncio.Future[Encoded] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._channel.send(Call(number, method, msgspec.Raw(arguments)))
        return answer

    def received(self, message: memoryview) -> None:
        """Resolve the call that the message answers."""
        self._has_heard = True
        match _decode(message):
            case Result(number, value):
                if (answer := self._waiting(number)) is not None:
                    answer.set_result(bytes(value))
            case Fault() as fault:
                if (answer := self._waiting(fault.number)) is not None:
                    answer.set_exception(from_fault(fault))
            case Status() as status:
                self._heard(self, status)
            case Closing():
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

    def _waiting(self, number: int) -> asyncio.Future[Encoded] | None:
        answer = self._asked.pop(number, None)
        return None if answer is None or answer.done() else answer


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
