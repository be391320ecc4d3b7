"""Listening for requests: at an address, or on a socket that several processes share."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from aiohttp import web

from service.observe.recorder import Recorder
from service.web.server import HttpServer, ServerPolicy

_BACKLOG = 1024
_LINGER_SECONDS = 1.0
_MAX_HANDLES = 65_536
_OWN_HANDLES = 256


@contextlib.asynccontextmanager
async def listen(
    app: web.Application, recorder: Recorder, host: str, port: int
) -> AsyncIterator[str]:
    """Serve `app` at an address; gives its URL. Raises OSError."""
    async with _running(app, recorder) as runner:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        yield url_of(host, runner.addresses[0][1])


@contextlib.asynccontextmanager
async def listen_on(app: web.Application, recorder: Recorder, fd: int) -> AsyncIterator[None]:
    """Serve `app` on a listening socket that another process opened and keeps using.

    At the end clients may use their connections once more: other processes take the next ones.
    """
    async with _running(app, recorder, linger_seconds=_LINGER_SECONDS) as runner:
        await web.SockSite(runner, socket.socket(fileno=fd), backlog=_BACKLOG).start()
        yield


@contextlib.contextmanager
def shared_socket(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket for child processes, on IPv4 where `host` has both. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    with socket.socket(family, kind, protocol) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
        yield bound


@contextlib.contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket for a child process. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))
        bound.listen(_BACKLOG)
        yield bound


def url_of(host: str, port: int) -> str:
    """The URL of an address.

    >>> url_of("::1", 3000)
    'http://[::1]:3000'
    """
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def allow_many_connections() -> None:
    """Slow clients hold a file handle each, and the usual soft limit is 1,024 of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_HANDLES if hard == resource.RLIM_INFINITY else min(hard, _MAX_HANDLES)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.asynccontextmanager
async def _running(
    app: web.Application, recorder: Recorder, *, linger_seconds: float = 0.0
) -> AsyncIterator[web.AppRunner]:
    policy = ServerPolicy(max_connections=_max_connections(), linger_seconds=linger_seconds)
    runner = HttpServer(app, recorder, policy)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


def _max_connections() -> int:
    """Clients get most of the file handles; the store, delivery and S3 keep the others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - min(_OWN_HANDLES, soft // 4)
