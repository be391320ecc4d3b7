"""A private folder for Unix sockets: made at the start, removed at the end, swept after a kill.

Under systemd it is in the unit's RuntimeDirectory, which commands see that are called by hand; the
unit's own /tmp they don't. Elsewhere it is in the temporary folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import structlog

PREFIX = "outbox-"
UNIT_FOLDER = Path("/run/inngest-outbox")  # the RuntimeDirectory in deploy/systemd
_UNIT_VARIABLE = "RUNTIME_DIRECTORY"
_SOCKET = "control"
# Held by the process that made the folder: a socket of its that is bound may not listen yet.
_LOCK = "lock"
_MAX_PATH_BYTES = 100  # of a Unix socket's address, 108 on Linux and 104 on macOS
_CONNECT_SECONDS = 0.2

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def socket_folder() -> Iterator[Path]:
    """A folder that only this user may enter, for sockets that others find. Raises OSError."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_own_parent()))
    try:
        if len(str(folder / _SOCKET).encode()) > _MAX_PATH_BYTES:
            raise OSError(errno.ENAMETOOLONG, f"the path of {folder.parent} is too long")
        with (folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def control_address(name: str = _SOCKET) -> Iterator[str | None]:
    """A path for a socket for commands, removed at the end. None where there can't be one."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(socket_folder())
        except OSError as error:
            log.warning("no_control_socket", reason=error.strerror)
            yield None
            return
        yield str(folder / name)


def sockets_of_services(name: str) -> list[Path]:
    """The sockets of this name in the folders of this user's services, some of them killed."""
    parents = dict.fromkeys((_own_parent(), UNIT_FOLDER, Path(tempfile.gettempdir())))
    found = [path for parent in parents for path in _found(parent, f"{PREFIX}*/{name}")]
    return [path for path in found if _is_own(path.parent)]


def sweep() -> None:
    """Remove the folders of this user's killed services: no process answers their sockets."""
    for folder in _found(_own_parent(), f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if _is_own(folder) and folder.is_dir() and _is_dead(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    """Whether the folder is this user's. It may go at any moment, as its service does."""
    try:
        return folder.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def _own_parent() -> Path:
    """Where this process makes its folder. systemd may name several folders; one is enough."""
    named, _, _ = os.environ.get(_UNIT_VARIABLE, "").partition(":")
    return Path(named or tempfile.gettempdir())


def _found(parent: Path, pattern: str) -> list[Path]:
    """What another user may not see is not theirs to see."""
    try:
        return list(parent.glob(pattern))
    except OSError:
        return []


def _is_dead(folder: Path) -> bool:
    """Whether there are sockets, no process listens at any, and none is about to."""
    sockets = [path for path in folder.iterdir() if path.is_socket()]
    return bool(sockets) and all(_refuses(path) for path in sockets) and not _is_locked(folder)


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


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
