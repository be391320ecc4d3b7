"""An application on listening sockets."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from service.observe.recorder import Recorder
from service.processes.listening import BACKLOG
from service.web.server.server import HttpServer, ServerPolicy

_OWN_HANDLES = 256


@contextlib.asynccontextmanager
async def listen_on(
    app: web.Application, recorder: Recorder, sockets: Sequence[socket.socket]
) -> AsyncIterator[HttpServer]:
    """Serve `app` on listening sockets, and close them at the end."""
    server = HttpServer(app, recorder, ServerPolicy(max_connections=_max_connections()))
    await server.setup()
    try:
        for one in sockets:
            await web.SockSite(server, one, backlog=BACKLOG).start()
        yield server
    finally:
        await server.cleanup()


def _max_connections() -> int:
    """Clients get most of the file handles; the store, delivery and S3 keep the others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - min(_OWN_HANDLES, soft // 4)
