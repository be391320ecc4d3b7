"""A service manager that notes what a process tells it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PING = "WATCHDOG=1"


@dataclass(frozen=True, slots=True)
class Notified:
    """The manager. `environment` is that of a process which it starts."""

    environment: dict[str, str]
    bound: socket.socket

    def states(self) -> list[str]:
        """The first lines of all messages since it was last asked, but those of its watchdog.

        It was told at least once that the event loop turns.
        """
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.bound.recv(4096).decode().partition("\n")[0])
        assert _PING in found
        return [one for one in found if one != _PING]


@contextlib.contextmanager
def notified(folder: Path) -> Iterator[Notified]:
    """A manager whose socket is in `folder`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(folder / "notify"))
        bound.settimeout(0)
        environment = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "60000000"}
        yield Notified(environment, bound)
