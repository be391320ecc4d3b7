"""SQLite's errors as it raises them, and as the outbox does."""

from __future__ import annotations

import sqlite3

from inngest_outbox.errors import OutboxUnavailableError


def sqlite_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("as SQLite says")
    primary = "_".join(name.split("_")[:2])
    error.sqlite_errorcode = getattr(sqlite3, name, None) or getattr(sqlite3, primary)
    error.sqlite_errorname = name
    return error


def fault(name: str) -> OutboxUnavailableError:
    error = OutboxUnavailableError(f"The outbox's file failed. ({name})")
    error.__cause__ = sqlite_error(name)
    return error
