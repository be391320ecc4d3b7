"""A service manager that notes what a process tells it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Notified:
    """The manager. `environment` is that of a process which it starts."""

    environment: dict[str, str]
    bound: socket.socket

    def states(self) -> list[str]:
        """The first lines of all messages since it was last asked."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.bound.recv(4096).decode().partition("\n")[0])
        return found


@contextlib.contextmanager
def notified(folder: Path) -> Iterator[Notified]:
    """A manager whose socket is in `folder`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(folder / "notify"))
        bound.settimeout(0)
        yield Notified({"NOTIFY_SOCKET": str(folder / "notify")}, bound)
