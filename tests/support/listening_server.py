"""A server that only listens: what came on its connections, and answers where a test wants them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.support.storage import PATIENCE_SECONDS

TAKEN = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"ids": ["01J"]}'


@dataclass(eq=False)
class Came:
    """A connection: the bytes that came, and whether the client has closed it."""

    writer: asyncio.StreamWriter
    received: bytes = b""
    is_closed: bool = False


@dataclass
class ListeningServer:
    """`answers` has the bytes of the next answers; a request without one is not answered."""

    url: str = ""
    answers: list[bytes] = field(default_factory=list)
    connections: list[Came] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def received(self) -> bytes:
        """All that came, on all connections."""
        return b"".join(one.received for one in self.connections)

    async def until(self, fact: Callable[[], bool]) -> None:
        """Wait until `fact` is true, which something that comes here makes true."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(fact)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what a connection brings."""
        one = Came(writer)
        self.connections.append(one)
        await self._tell()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                one.received += data
                if data.endswith(b"]") and self.answers:
                    writer.write(self.answers.pop(0))
                await self._tell()
        one.is_closed = True
        writer.close()
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def listening_server() -> AsyncIterator[ListeningServer]:
    """A server on a free port."""
    found = ListeningServer()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        for one in found.connections:
            one.writer.close()
