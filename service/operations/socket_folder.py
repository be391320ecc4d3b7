"""A private folder for Unix sockets: made at the start, removed at the end, swept after a kill."""

from __future__ import annotations

import contextlib
import errno
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
def socket_folder() -> Iterator[Path]:
    """A folder that only this user may enter, for sockets that others find. Raises OSError."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        if len(str(folder / _SOCKET).encode()) > _MAX_PATH_BYTES:
            raise OSError(errno.ENAMETOOLONG, "the temporary folder's path is too long")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def control_address() -> Iterator[str | None]:
    """A path for the control socket, removed at the end. None where there can't be one."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(socket_folder())
        except OSError as error:
            log.warning("no_control_socket", reason=error.strerror)
            yield None
            return
        yield str(folder / _SOCKET)


def sweep() -> None:
    """Remove the folders of this user's killed services: no process answers their sockets."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if found.st_uid == os.geteuid() and folder.is_dir() and _is_dead(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_dead(folder: Path) -> bool:
    """Whether there are sockets, and no process listens at any."""
    sockets = [path for path in folder.iterdir() if path.is_socket()]
    return bool(sockets) and all(_refuses(path) for path in sockets)


def _refuses(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_CONNECT_SECONDS)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False
