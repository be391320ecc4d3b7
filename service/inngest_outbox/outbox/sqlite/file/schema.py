"""Applying migrations to an SQLite file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.sqlite.file.connection import connect_read_only
from inngest_outbox.outbox.sqlite.file.disk import make_folder
from inngest_outbox.outbox.sqlite.file.lock import writer_of
from inngest_outbox.outbox.sqlite.file.log import open_alone

_BUSY_MS = 30_000
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_HAS_RECORD = "SELECT 1 FROM sqlite_master WHERE name = 'outbox_migrations'"
_MAKE_RECORD = """
CREATE TABLE IF NOT EXISTS outbox_migrations (
    id            TEXT    PRIMARY KEY,
    applied_at_ms INTEGER NOT NULL
) STRICT
"""
_APPLIED = "SELECT id FROM outbox_migrations"
_RECORD = "INSERT INTO outbox_migrations VALUES (?, ?)"

_log = structlog.get_logger(__name__)


class SqliteSchema:
    """The schema of the file at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def applied(self) -> set[str]:
        """The ids of the migrations that are applied. Changes nothing, makes no file."""
        if not self._path.exists() or not self._path.stat().st_size:
            return set()
        _warn_of_readers(self._path)
        # A connection that may write would copy the log into the database as it closes.
        with connect_read_only(self._path) as connection:
            try:
                return _applied(connection)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK:
                    # A power cut left a rollback journal, from before the file got its
                    # write-ahead log. `apply`, which may write, rolls it back and looks again.
                    return set()
                raise

    def apply(self, migrations: Sequence[tuple[str, str]]) -> list[str]:
        """Apply those that are not applied yet, in one transaction; returns their ids."""
        make_folder(self._path.parent)
        with _folder_lock(self._path.parent), self._connected() as connection:
            applied = _applied(connection)
            missing = [one for one in migrations if one[0] not in applied]
            if missing:
                _apply(connection, missing)
            return [migration_id for migration_id, _ in missing]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        # Only its owner may read it: it holds payloads. SQLite gives its log the same mode.
        self._path.touch(mode=0o600)
        holder = writer_of(self._path)
        is_alone = holder is None or holder.get("pid") == os.getpid()
        with open_alone(self._path, is_alone=is_alone) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            yield connection


def _warn_of_readers(path: Path) -> None:
    """Warn when other users may read the file, for example after a copy."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        _log.warning(
            "file_open_to_others", path=str(path), mode=f"{mode:04o}", repair=f"chmod 600 {path}"
        )


def _applied(connection: sqlite3.Connection) -> set[str]:
    if connection.execute(_HAS_RECORD).fetchone() is None:
        return set()
    return {one for (one,) in connection.execute(_APPLIED)}


def _apply(connection: sqlite3.Connection, migrations: Sequence[tuple[str, str]]) -> None:
    """Apply them. When one fails, the end of the connection rolls all back.

    `executescript` commits an open transaction, so one script begins it and has them all.
    """
    texts = (f"{text}\n;" for _, text in migrations)
    connection.executescript("\n".join(("BEGIN IMMEDIATE;", _MAKE_RECORD, ";", *texts)))
    now = wall_now_ms()
    connection.executemany(_RECORD, [(migration_id, now) for migration_id, _ in migrations])
    connection.execute("COMMIT")


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Lock the folder, not the file: closing a second handle of the file drops SQLite's locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
