"""Whether the outbox's file was found damaged."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import structlog

from service.outbox.sqlite.faults import is_damage

SENTENCE = (
    "The outbox's file is damaged. What can be read is delivered; nothing more is accepted. Stop "
    "the service and run `outbox recover`, or restore a backup."
)

log = structlog.get_logger(__name__)


class Damage:
    """Remembers, until the process ends, that a part of the file at `path` could not be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_found = False

    def note(self, error: Exception) -> None:
        """Remember `error` if it means damage."""
        if is_damage(error) and not self.is_found:
            self.is_found = True
            reason = str(error.__cause__ or error)
            log.error("file_damaged", file=str(self._path), reason=reason, advice=SENTENCE)


def is_unreadable(error: Exception) -> bool:
    """Whether unreadable content of a row caused `error`: bad UTF-8, or a damaged page."""
    if isinstance(error, (msgspec.DecodeError, UnicodeDecodeError)) or is_damage(error):
        return True
    undecoded = isinstance(error, sqlite3.OperationalError)
    return undecoded and getattr(error, "sqlite_errorcode", None) is None
