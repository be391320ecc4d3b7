"""`Repairs` that the running service makes, over its control socket.

Every fault of the socket, the service or its answer raises OutboxUnavailableError. A command that
was interrupted may have been carried out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import aiohttp
import msgspec

from service.console.operations.control_server import Command, Refusal
from service.errors import OutboxUnavailableError
from service.outbox.audit import Act
from service.outbox.model import DeliveryRecord, Named

_OK = 200
_CONNECT_SECONDS = 5.0
START_SECONDS = 5.0
_POLL_SECONDS = 0.1
_NO_ANSWER = "The service holds the outbox, but its control socket does not answer."
_FORBIDDEN = (
    "The service runs as another user, and only that user may send it commands. Run this command "
    "as the service's user."
)
ANSWER_SECONDS = 60.0

T = TypeVar("T")


class ControlClient:
    """Sends commands. Made by `control_client`.

    Each but a purge, which takes as long as there are rows, is answered within `answer_seconds`.
    """

    def __init__(self, http: aiohttp.ClientSession, answer_seconds: float) -> None:
        self._http = http
        self._answer_seconds = answer_seconds

    async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """Replay the named rows that are dead; returns their ids."""
        return await self._do("replay", Command(actor=actor, wanted=wanted, act=act), list[str])

    async def discard(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """Remove the named rows that are not under a claim; returns their ids."""
        return await self._do("discard", Command(actor=actor, wanted=wanted, act=act), list[str])

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """Remove delivered rows settled longer ago; returns how many."""
        command = Command(actor=actor or "", older_than_seconds=older_than_seconds)
        return await self._answered("purge", command, int)

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        """Pause or resume delivery; returns the delivery record."""
        command = Command(actor=actor, paused=paused, ask_now=ask_now, reason=reason)
        return await self._do("pause", command, DeliveryRecord)

    async def sign_out(self, owners: Sequence[str], *, actor: str) -> int:
        """End all sessions of these owners; returns how many owners that were."""
        return await self._do("sign-out", Command(actor=actor, owners=tuple(owners)), int)

    async def faults(self) -> list[str]:
        """Why the service can't store events; empty when it can."""
        return await self._do("faults", Command(), list[str])

    async def _do(self, action: str, command: Command, kind: type[T]) -> T:
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await self._answered(action, command, kind)
        except TimeoutError as error:
            raise OutboxUnavailableError(
                f"The service has not answered for {self._answer_seconds:g} s. The command may "
                "still be carried out."
            ) from error

    async def _answered(self, action: str, command: Command, kind: type[T]) -> T:
        try:
            body = msgspec.json.encode(command)
            async with self._http.post(f"http://outbox/{action}", data=body) as response:
                answer = await response.read()
                if response.status != _OK:
                    raise OutboxUnavailableError(msgspec.json.decode(answer, type=Refusal).error)
                return msgspec.json.decode(answer, type=kind)
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise OutboxUnavailableError(_NO_ANSWER) from error


@contextlib.asynccontextmanager
async def control_client(
    path: str,
    *,
    patience_seconds: float = START_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> AsyncIterator[ControlClient]:
    """A client of the control socket at `path`.

    Waits at most `patience_seconds` for a listener: a starting service locks its outbox before it
    takes commands. Raises OutboxUnavailableError.
    """
    await _wait_for_listener(path, patience_seconds)
    timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS)
    connector = aiohttp.UnixConnector(path)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        yield ControlClient(http, answer_seconds)


async def _wait_for_listener(path: str, patience_seconds: float) -> None:
    until = time.monotonic() + patience_seconds
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(path)
        except PermissionError as error:
            raise OutboxUnavailableError(_FORBIDDEN) from error
        except OSError as error:
            if time.monotonic() >= until:
                raise OutboxUnavailableError(_NO_ANSWER) from error
            await asyncio.sleep(_POLL_SECONDS)
        else:
            writer.close()
            return
