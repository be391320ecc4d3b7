"""The meaning of SQLite's errors: a sentence for a person, and what fails by the same cause."""

from __future__ import annotations

import contextlib
import enum
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.file_descriptors import is_out_of_descriptors

_PRIMARY = 0xFF
_STORE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_IOERR,
    }
)
_KIND = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM})
_SENTENCES = {
    "SQLITE_FULL": "The disk of the outbox is full.",
    "SQLITE_BUSY": "Another process holds the outbox's file.",
    "SQLITE_LOCKED": "Another process holds the outbox's file.",
    "SQLITE_READONLY": "The outbox's file can't be written.",
    "SQLITE_CANTOPEN": "The outbox's file can't be opened.",
    "SQLITE_CORRUPT": "The outbox's file is damaged.",
    "SQLITE_NOTADB": "The outbox's file is not an SQLite database.",
    "SQLITE_IOERR": "The disk of the outbox failed.",
}
_NO_DESCRIPTORS = "The process has no free file descriptor (see `ulimit -n`)."

log = structlog.get_logger(__name__)


class FaultScope(enum.Enum):
    """The work that fails by the cause of a failed transaction."""

    STORE = "nothing can be written now"
    KIND = "the same kind of work fails, another may pass"
    ITEM = "something is wrong with this item"


class Corruption:
    """Remembers, until the process ends, that the file at `path` is damaged.

    From then on nothing may be written to it: what is written on a damaged file is lost with it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fault: str | None = None

    def note(self, error: BaseException) -> None:
        """Remember `error` if it says that the file is damaged."""
        if is_corruption(error):
            self.found(str(error.__cause__ or error))

    def found(self, reason: str) -> None:
        """Remember damage, which `reason` describes. Logged once."""
        if self.fault is None:
            self.fault = (
                "The outbox's file is damaged. Nothing more is written to it. Stop the service "
                "and run `outbox recover`, or restore a backup."
            )
            log.error("file_damaged", file=str(self._path), reason=reason, advice=self.fault)

    def refuse(self) -> None:
        """Raise OutboxUnavailableError once damage is known."""
        if self.fault is not None:
            raise OutboxUnavailableError(self.fault)


def corrupt(words: str) -> sqlite3.DatabaseError:
    """The error of damage that the service found, as SQLite would raise it."""
    error = sqlite3.DatabaseError(words)
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"
    return error


def scope_of(error: Exception) -> FaultScope:
    """The work that fails by the cause of `error`."""
    if isinstance(error, OutboxUnavailableError) and not isinstance(error.__cause__, sqlite3.Error):
        return FaultScope.STORE
    code = _code(error)
    if code in _STORE or is_corruption(error):
        return FaultScope.STORE
    return FaultScope.KIND if code in _KIND else FaultScope.ITEM


def is_io_error(error: Exception) -> bool:
    """True if the disk failed a read, a write or a sync."""
    return _code(error) == sqlite3.SQLITE_IOERR or isinstance(error.__cause__, OSError)


def is_disk_trouble(error: Exception) -> bool:
    """True if the disk is full or failed."""
    return is_io_error(error) or _code(error) == sqlite3.SQLITE_FULL


def is_corruption(error: BaseException) -> bool:
    """True if `error` says that the file is damaged: a page, or text that is not UTF-8."""
    cause = error.__cause__ if isinstance(error, OutboxUnavailableError) else error
    if isinstance(cause, sqlite3.OperationalError) and not hasattr(cause, "sqlite_errorcode"):
        return "decode" in str(cause).lower()
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextlib.contextmanager
def unavailable_if_sqlite_fails(written: Path | None = None) -> Iterator[None]:
    """Turn SQLite's errors into OutboxUnavailableError; `written` as for `unavailable`."""
    try:
        yield
    except sqlite3.Error as error:
        raise unavailable(error, written) from error


def unavailable(error: sqlite3.Error, written: Path | None = None) -> OutboxUnavailableError:
    """The refusal for an error of SQLite.

    `written` is the only file that is written, None: the outbox's. A full disk is that file's.
    """
    if written and _code(error) == sqlite3.SQLITE_FULL:
        return OutboxUnavailableError(f"The disk of {written.parent.resolve()} is full.")
    return OutboxUnavailableError(_sentence(error))


def _code(error: BaseException) -> int:
    cause = error.__cause__ if isinstance(error, OutboxUnavailableError) else error
    return (getattr(cause, "sqlite_errorcode", None) or 0) & _PRIMARY


def _sentence(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_IOERR")) and is_out_of_descriptors():
        log.error("no_file_descriptors", error=name)
        return f"{_NO_DESCRIPTORS} ({name})"
    for prefix, sentence in _SENTENCES.items():
        if name.startswith(prefix):
            return f"{sentence} ({name})"
    if is_corruption(error):
        return _SENTENCES["SQLITE_CORRUPT"]
    return f"The outbox's file failed. ({name})"
