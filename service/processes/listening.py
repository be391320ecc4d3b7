"""Listening for requests: at an address, or on sockets that another process has opened.

A socket that a successor takes over is never closed in between: connections wait in its backlog.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.processes.passed_sockets import PassedSockets, take_passed_sockets

BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """The sockets on which requests come, and the URL of the first."""

    passed: PassedSockets
    url: str

    def copies(self) -> list[socket.socket]:
        """Sockets for one program to close; these stay open for its successor."""
        return [one.dup() for one in self.passed.sockets]

    def close(self) -> None:
        """Listen no more, unless another process does."""
        for one in self.passed.sockets:
            one.close()


@contextlib.contextmanager
def open_listening(host: str, port: int) -> Iterator[Listening]:
    """The sockets that another process has passed to this one, else new ones at an address.

    Raises OSError, and ConfigurationError for a descriptor that can't be listened on.
    """
    passed = take_passed_sockets(os.environ)
    opened = passed if passed.sockets else PassedSockets(_bound(host, port))
    bound_host, bound_port = opened.sockets[0].getsockname()[:2]
    listening = Listening(opened, url_of(bound_host if passed.sockets else host, bound_port))
    try:
        yield listening
    finally:
        listening.close()


@contextlib.contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket for a child process. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))
        bound.listen(BACKLOG)
        yield bound


def url_of(host: str, port: int) -> str:
    """The URL of an address.

    >>> url_of("::1", 3000)
    'http://[::1]:3000'
    """
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _bound(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of `host`; all have the same port."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    with contextlib.ExitStack() as opened:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = opened.enter_context(socket.socket(family, kind, protocol))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                one.bind((address[0], port, *address[2:]))
                one.listen(BACKLOG)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                    continue  # a name of both versions of IP, on a machine that has one of them
                raise OSError(error.errno, f"{error.strerror}: {url_of(host, port)}") from error
            port = one.getsockname()[1]
            bound.append(one)
        opened.pop_all()
    return bound
