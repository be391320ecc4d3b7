"""The folder of the control socket: made at the start, removed at the end, swept after a kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import structlog

PREFIX = "outbox-"
_SOCKET = "control"
_MAX_PATH_BYTES = 100  # of a Unix socket's address, 108 on Linux and 104 on macOS
_CONNECT_SECONDS = 0.2

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def control_address() -> Iterator[str | None]:
    """A path for the socket, removed at the end. None where no such folder can be made."""
    try:
        sweep()
        folder = tempfile.mkdtemp(prefix=PREFIX)
    except OSError as error:
        log.warning("no_control_socket", reason=error.strerror)
        yield None
        return
    try:
        path = str(Path(folder) / _SOCKET)
        fits = len(path.encode()) <= _MAX_PATH_BYTES
        if not fits:
            log.warning("no_control_socket", reason="the temporary folder's path is too long")
        yield path if fits else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove the folders of this user's services that were killed: nobody answers their sockets."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if found.st_uid == os.geteuid() and folder.is_dir() and _is_dead(folder / _SOCKET):
                shutil.rmtree(folder, ignore_errors=True)


def _is_dead(path: Path) -> bool:
    """Whether there is a socket at which nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_CONNECT_SECONDS)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False
