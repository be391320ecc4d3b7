"""A front process' connection to the store process.

While the store is away calls wait for a moment, then fail with OutboxUnavailableError. The
invariant: a call is sent once at most; when the connection ends, what became of it is unknown, and
its caller is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import msgspec
import structlog

from service.errors import OutboxUnavailableError
from service.outbox.event import Event
from service.outbox.keys import IdempotencyKey
from service.outbox.link.channel import Channel
from service.outbox.link.messages import Status
from service.outbox.link.methods import Method
from service.outbox.link.store_session import StoreSession
from service.outbox.receipt import Receipt

_AWAY = "The store process does not answer."
_MANY = 2**32  # more than the revisions of one store process

log = structlog.get_logger(__name__)
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class LinkPolicy:
    """How long a call waits for a store that is away, and how often the store is looked for.

    A store that closes has a successor, which may migrate first: calls wait longer for it. One
    that has said nothing for `silence_seconds` is taken to be away: it hangs.
    """

    patience_seconds: float = 3.0
    closing_patience_seconds: float = 30.0
    retry_seconds: float = 0.05
    silence_seconds: float = 10.0


class StoreLink:
    """Calls methods of the store process that listens at `path`."""

    def __init__(self, path: str, policy: LinkPolicy | None = None) -> None:
        self._path = path
        self._policy = policy or LinkPolicy()
        self._session: StoreSession | None = None
        self._sessions = 0
        self._patient_until = asyncio.get_running_loop().time() + self._policy.patience_seconds
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
            async with asyncio.timeout_at(self._patient_until):
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

    async def append(self, event: Event, *, key: IdempotencyKey | None = None) -> Receipt:
        """`Intake.append` of the store; events that come in one turn share a message."""
        session = self._session or await self._wait_for_session()
        receipt = session.append(event, key)
        del event, key  # thousands may wait, and the store process has theirs
        return await receipt

    async def _wait_for_session(self) -> StoreSession:
        await self.wait()
        if self._session is None:
            raise OutboxUnavailableError(retry_after_seconds=1)
        return self._session

    async def _keep_session(self) -> None:
        loop = asyncio.get_running_loop()
        sessions: list[StoreSession] = []

        def listener(channel: Channel) -> StoreSession:
            sessions.append(StoreSession(channel, self._heard))
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
            # A store that closes answers its calls soon, or hangs.
            loop.call_later(self._policy.closing_patience_seconds, channel.abort)
        except asyncio.CancelledError:
            channel.abort()
            raise
        finally:
            self._heard(session, None)

    def _heard(self, session: StoreSession, status: Status | None) -> None:
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
        self._changed.set()
        self._changed = asyncio.Event()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
