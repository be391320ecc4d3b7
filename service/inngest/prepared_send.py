"""A request that is ready on its connection and waits for permission to leave.

The invariant: not one byte of it is written before `begin`. aiohttp writes the head together with
the first bytes of the body, so a body that waits holds both back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload

from service.inngest.send_result import SendResult

# aiohttp waits for the connection only after larger bodies.
MAX_BYTES = 32 * 1024
# Servers close idle connections, and the time limit of a request counts its wait.
KEEP_SECONDS = 1.0


class WaitingBody(BytesPayload):
    """The bytes of a body, at most MAX_BYTES; `release` lets them leave."""

    def __init__(self, value: bytes) -> None:
        super().__init__(value)
        self._writer: AbstractStreamWriter | None = None
        self._released: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_released(self) -> bool:
        """Whether the bytes may leave."""
        return self._released.done() and not self._released.cancelled()

    @property
    def is_over(self) -> bool:
        """Whether an answer came, or a fault, before the bytes might leave: they never do."""
        return self._released.cancelled()

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Write the bytes once they are released."""
        if not self.is_released:
            self._writer = writer
            await self._released
        else:
            await super().write_with_length(writer, content_length)

    def release(self) -> None:
        """Write the bytes before returning, or later as soon as there is a connection."""
        if self._writer is not None:
            # A connection that is closing refuses the bytes; its request ends with that fault.
            # Writing a small body waits for nothing, so one step of the coroutine is all of it.
            with contextlib.suppress(ConnectionError, StopIteration):
                self._writer.write(self._value).send(None)
        self._released.set_result(None)


class PreparedSend:
    """`sending` runs at once and sends `body`. It is cancelled unless it begins soon."""

    def __init__(self, body: WaitingBody, sending: Coroutine[None, None, SendResult]) -> None:
        self._body = body
        self._sending = asyncio.create_task(sending, name="prepared-send")
        self._end = asyncio.get_running_loop().call_later(KEEP_SECONDS, self.cancel)

    def begin(self) -> bool:
        """Let the request leave; False where it has failed or was cancelled: nothing has left.

        Repeatable: a request that has begun leaves once.
        """
        if self._body.is_released:
            return True
        self._end.cancel()
        if self._sending.done() or self._sending.cancelling() or self._body.is_over:
            return False
        self._body.release()
        return True

    def cancel(self) -> None:
        """End the request and close its connection."""
        self._sending.cancel()

    async def result(self) -> SendResult:
        """What became of a request that has begun. Cancelling ends the request."""
        return await self._sending
