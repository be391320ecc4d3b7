"""Listening for requests: at an address, or on sockets that systemd has opened.

systemd's protocol is socket activation. The sockets are the descriptors from 3 on, LISTEN_FDS says
how many there are, and LISTEN_PID for which process they are. Connections wait in their backlog
while the service restarts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass

from inngest_outbox.errors import ConfigurationError

BACKLOG = 1024
_FIRST_PASSED = 3
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True)
class Listening:
    """The sockets on which requests come, and the URL of the first."""

    sockets: Sequence[socket.socket]
    url: str

    def close(self) -> None:
        """Listen no more, unless another process does."""
        for one in self.sockets:
            one.close()


@contextlib.contextmanager
def open_listening(host: str, port: int) -> Iterator[Listening]:
    """The sockets that systemd has passed to this process, else new ones at an address.

    Raises OSError, and ConfigurationError for a descriptor that can't be listened on.
    """
    passed = _passed(os.environ)
    sockets = passed or _bound(host, port)
    bound_host, bound_port = sockets[0].getsockname()[:2]
    url = url_of(bound_host if passed else host, bound_port)
    listening = Listening(sockets, url)
    try:
        yield listening
    finally:
        listening.close()


def url_of(host: str, port: int) -> str:
    """The URL of an address.

    >>> url_of("::1", 3000)
    'http://[::1]:3000'
    """
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _passed(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that this process was given.

    Removes the variables, so that no child process takes the descriptors for its own.
    """
    pid, count, _ = (
        environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    return [_listener(fd) for fd in range(_FIRST_PASSED, _FIRST_PASSED + int(count))]


def _listener(fd: int) -> socket.socket:
    with contextlib.suppress(OSError):
        os.set_inheritable(fd, False)
        passed = socket.socket(fileno=fd)
        is_tcp = passed.family in (socket.AF_INET, socket.AF_INET6)
        if is_tcp and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return passed
        passed.close()
    raise ConfigurationError([f"LISTEN_FDS: descriptor {fd} is not a listening TCP socket"])


def _bound(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of `host` on this machine; all have the same port."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    bound: list[socket.socket] = []
    fault: OSError | None = None
    with contextlib.ExitStack() as opened:
        for family, _, _, _, (address, _, *scope) in dict.fromkeys(found):
            try:
                one = socket.create_server((address, port, *scope), family=family, backlog=BACKLOG)
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                fault = OSError(error.errno, f"{reason}: {url_of(host, port)}; set HOST or PORT")
                if error.errno in _NOT_HERE:
                    continue  # a name of both versions of IP, on a machine that has one of them
                raise fault from error
            opened.enter_context(one)
            port = one.getsockname()[1]
            bound.append(one)
        if fault and not bound:
            raise fault
        opened.pop_all()
    return bound
