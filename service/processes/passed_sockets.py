"""Listening sockets that another process hands over: systemd, or the version before this one.

The protocol is systemd's socket activation. The sockets are the descriptors from 3 on, LISTEN_FDS
says how many there are, and LISTEN_PID for which process they are.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

from service.errors import ConfigurationError

_FIRST = 3
_PID, _COUNT, _NAMES = "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"
_GIVEN_AWAY = "given-away"  # the name of a socket of which nobody else keeps a copy


@dataclass(frozen=True, slots=True)
class PassedSockets:
    """The sockets that this process was given; `are_kept` says whether their giver keeps them."""

    sockets: Sequence[socket.socket] = ()
    are_kept: bool = False


def take_passed_sockets(environment: MutableMapping[str, str]) -> PassedSockets:
    """What this process was given.

    Removes the variables, so that no child process takes the descriptors for its own. Raises
    ConfigurationError when a descriptor is no TCP socket that listens.
    """
    pid, count, names = (environment.pop(name, "") for name in (_PID, _COUNT, _NAMES))
    if pid != str(os.getpid()) or not count.isdigit():
        return PassedSockets()
    labels = dict(enumerate(names.split(":"), _FIRST))
    sockets = [_listener(fd, labels.get(fd, "")) for fd in range(_FIRST, _FIRST + int(count))]
    return PassedSockets(sockets, are_kept=_GIVEN_AWAY not in labels.values())


def pass_to_next_program(passed: PassedSockets, environment: MutableMapping[str, str]) -> None:
    """Put the sockets where the program that replaces this one in its process finds them.

    Whatever had their descriptors is closed.
    """
    # Copies above all targets, so that no target overwrites another one's source.
    lowest = _FIRST + len(passed.sockets)
    above = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, lowest) for one in passed.sockets]
    for target, fd in enumerate(above, _FIRST):
        os.dup2(fd, target, inheritable=True)
    environment[_PID] = str(os.getpid())
    environment[_COUNT] = str(len(above))
    if not passed.are_kept:
        environment[_NAMES] = ":".join(_GIVEN_AWAY for _ in above)


def _listener(fd: int, name: str) -> socket.socket:
    os.set_inheritable(fd, False)
    try:
        passed = socket.socket(fileno=fd)
    except OSError:
        raise _no_listener(fd, name) from None
    is_tcp = passed.family in (socket.AF_INET, socket.AF_INET6)
    if not (is_tcp and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
        raise _no_listener(fd, name)
    return passed


def _no_listener(fd: int, name: str) -> ConfigurationError:
    called = f" ({name})" if name else ""
    return ConfigurationError([f"{_COUNT}: descriptor {fd}{called} is no TCP socket that listens"])
