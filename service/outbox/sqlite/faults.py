"""What SQLite's errors mean: a sentence for a person, and what else fails by the same cause."""

from __future__ import annotations

import contextlib
import enum
import sqlite3
from collections.abc import Iterator

import structlog

from service.errors import OutboxUnavailableError
from service.observe.file_descriptors import is_out_of_descriptors

_PRIMARY = 0xFF

log = structlog.get_logger(__name__)
_STORE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
    }
)
_KIND = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CORRUPT})
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


class FaultScope(enum.Enum):
    """What a failed transaction says about other work."""

    STORE = "nothing can be written now"
    KIND = "the same kind of work fails, another may pass"
    ITEM = "something is wrong with this item"


def scope_of(error: Exception) -> FaultScope:
    """What else fails by the cause of `error`."""
    if isinstance(error, OutboxUnavailableError) and error.__cause__ is None:
        return FaultScope.STORE
    code = _code(error)
    if code in _STORE:
        return FaultScope.STORE
    return FaultScope.KIND if code in _KIND else FaultScope.ITEM


def is_io_error(error: Exception) -> bool:
    """Whether the disk failed a read, a write or a sync."""
    return _code(error) == sqlite3.SQLITE_IOERR


def is_disk_trouble(error: Exception) -> bool:
    """Whether the disk is full or failed."""
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def is_damage(error: Exception) -> bool:
    """Whether `error` says that the file is damaged."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextlib.contextmanager
def unavailable_if_sqlite_fails() -> Iterator[None]:
    """Turn SQLite's errors into OutboxUnavailableError."""
    try:
        yield
    except sqlite3.Error as error:
        raise OutboxUnavailableError(_sentence(error)) from error


def _code(error: Exception) -> int:
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
    return f"The outbox's file failed. ({name})"
