"""A private folder for Unix sockets: made at the start, removed at the end, swept after a kill.

Under systemd it is in the unit's RuntimeDirectory, which commands see that are called by hand; the
unit's own /tmp they don't. Elsewhere it is in the temporary folder. The file system decides who may
connect: only this user.
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

# The sockets of a service, and of a process that delivers: a store process behind it, or a relay.
SERVICE, STORE = "service", "store"
UNIT_FOLDER = Path("/run/inngest-outbox")  # the RuntimeDirectory in deploy/systemd
_PREFIX = "outbox-"
_UNIT_VARIABLE = "RUNTIME_DIRECTORY"
# Held by the process that made the folder. A folder that has none is being made.
_LOCK = "lock"
_OUTBOX = "outbox"
_MAX_PATH_BYTES = 100  # of a Unix socket's address, 108 on Linux and 104 on macOS

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def socket_folder(outbox: str) -> Iterator[Path]:
    """A folder that only this user may enter, for sockets that others find by their `outbox`.

    Raises OSError.
    """
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_own_parent()))
    try:
        if len(str(folder / SERVICE).encode()) > _MAX_PATH_BYTES:
            raise OSError(errno.ENAMETOOLONG, f"the path of {folder.parent} is too long")
        (folder / _OUTBOX).write_bytes(os.fsencode(outbox))
        made = folder / f"{_LOCK}-made"
        with made.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made.rename(folder / _LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def listen_in(folder: Path, name: str) -> Iterator[socket.socket]:
    """A listening socket that only this user can reach. Raises OSError."""
    path = folder / name
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))
        path.chmod(0o600)
        bound.listen()
        yield bound


@contextlib.contextmanager
def service_socket(outbox: str, name: str = SERVICE) -> Iterator[socket.socket | None]:
    """The listening socket `name` of a process on `outbox`, removed at the end.

    None where there can't be one.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(socket_folder(outbox))
            bound = stack.enter_context(listen_in(folder, name))
        except OSError as error:
            log.warning("no_control_socket", reason=error.strerror)
            yield None
            return
        yield bound


def sockets_of_services(outbox: str) -> list[Path]:
    """The sockets of this user's services on `outbox` that live."""
    parents = dict.fromkeys((_own_parent(), UNIT_FOLDER, Path(tempfile.gettempdir())))
    found = [path for parent in parents for path in parent.glob(f"{_PREFIX}*/{SERVICE}")]
    own = [path for path in found if _is_own(path.parent) and not _is_dead(path.parent)]
    return [path for path in own if _is_of(outbox, path.parent)]


def _sweep() -> None:
    """Remove the folders of this user's killed services."""
    for folder in list(_own_parent().glob(f"{_PREFIX}*")):
        if _is_own(folder) and _is_dead(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_dead(folder: Path) -> bool:
    """True when the process that made the folder has ended."""
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is held, or not there yet
        return False
    return True


def _is_own(folder: Path) -> bool:
    """True for a folder of this user. It may go at any moment, as its service does."""
    try:
        return folder.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def _is_of(outbox: str, folder: Path) -> bool:
    """True for the folder of a service on `outbox`."""
    with contextlib.suppress(OSError):
        return (folder / _OUTBOX).read_bytes() == os.fsencode(outbox)
    return False


def _own_parent() -> Path:
    """The folder of this process' folder. systemd may name several; one is enough."""
    named, _, _ = os.environ.get(_UNIT_VARIABLE, "").partition(":")
    return Path(named or tempfile.gettempdir())
