"""Accepting connections for an application from listening sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import AsyncIterator, Sequence
from typing import cast

from aiohttp import web

from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.web.server.server import HttpServer, ServerPolicy

_OWN_HANDLES = 256
_ACCEPTS_A_TURN = 64
_FULL_SECONDS = 0.1
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@contextlib.asynccontextmanager
async def listen_on(
    app: web.Application, recorder: Recorder, sockets: Sequence[socket.socket]
) -> AsyncIterator[HttpServer]:
    """Serve `app` on listening sockets, and close them at the end."""
    server = HttpServer(app, recorder, ServerPolicy(max_connections=_max_connections()))
    await server.setup()
    try:
        for one in sockets:
            await Acceptor(server, one).start()
        yield server
    finally:
        await server.cleanup()


class Acceptor(web.BaseSite):
    """Accepts up to 64 waiting connections a turn of the loop from a socket that others may share.

    asyncio's own server accepts one a turn, so busy turns would lock out new clients. While the
    process has no descriptor left it accepts nothing for a moment. `stop` closes the socket.
    """

    def __init__(self, server: HttpServer, listening: socket.socket) -> None:
        super().__init__(server)
        self._listening = listening
        self._factory = server.server
        self._connecting: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """Aiohttp asks for one; nothing shows it."""
        return "acceptor"

    async def start(self) -> None:
        """Begin to accept."""
        await super().start()
        self._listening.setblocking(False)
        self._resume()

    async def stop(self) -> None:
        """Accept nothing more. Connections that were accepted stay."""
        if self._pause:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()
        if self._connecting:
            await asyncio.wait(self._connecting)
        await super().stop()

    def _resume(self) -> None:
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                accepted, _ = self._listening.accept()
            except BlockingIOError:  # none waits, or another process was sooner
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._rest()
                    return
                continue  # that client is gone
            task = asyncio.create_task(self._connect(accepted))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _rest(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listening)
        self._pause = loop.call_later(_FULL_SECONDS, self._resume)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            factory = cast("web.Server", self._factory)  # there since `setup`
            await asyncio.get_running_loop().connect_accepted_socket(factory, accepted)
        except OSError:  # the client is gone
            accepted.close()


def _max_connections() -> int:
    """Clients get most of the file handles; the store, delivery and S3 keep the others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - min(_OWN_HANDLES, soft // 4)
