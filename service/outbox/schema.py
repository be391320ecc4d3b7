"""The schema of an outbox: which migrations there are, which are applied, and applying them.

Migrations are numbered SQL files, the same numbers for both dialects, forward only. A migration and
its record commit together, and only one process applies at a time, so a process killed at any
moment leaves either the old schema or the new one and nothing that a person has to unlock.
Everything here blocks: call it before the event loop or in a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from yoyo import get_backend, read_migrations

from service.errors import OutboxUnavailableError, SchemaTooNewError

SQLITE_PREFIX = "sqlite:///"
CONNECT_TIMEOUT_SECONDS = 5
ADVISORY_LOCK = 0x6F7574626F78  # "outbox"

_APPLIED = "SELECT migration_id FROM _yoyo_migration"
_HAS_RECORD_SQLITE = "SELECT 1 FROM sqlite_master WHERE name = '_yoyo_migration'"
_HAS_RECORD_POSTGRESQL = "SELECT to_regclass('_yoyo_migration') IS NOT NULL"


def migrate(url: str) -> list[str]:
    """Bring the outbox at `url` to the schema that this code knows; returns the ids applied.

    Safe to repeat and to call from several processes at once: the others wait. Makes the file
    and its folder for SQLite. Raises SchemaTooNewError, and OutboxUnavailableError when the
    database can't be reached or written; then nothing of the migration under way was kept.
    """
    if not pending(url):
        return []
    with _errors_mapped(), _one_process(url):
        return _apply(url)


def pending(url: str) -> list[str]:
    """The ids that `migrate` would apply, oldest first. Changes nothing, makes no file.

    Raises SchemaTooNewError and OutboxUnavailableError.
    """
    with _errors_mapped():
        applied = _applied(url)
    known = known_ids(url)
    if applied.difference(known):
        raise SchemaTooNewError
    return [migration_id for migration_id in known if migration_id not in applied]


def known_ids(url: str) -> list[str]:
    """The ids of the migrations for the dialect of `url`, oldest first."""
    return sorted(path.stem for path in _folder(url).glob("*.sql"))


def latest_known() -> str:
    """The id of the newest schema that this code knows, the same in both dialects."""
    return known_ids(SQLITE_PREFIX)[-1]


def _is_sqlite(url: str) -> bool:
    return url.startswith(SQLITE_PREFIX)


def _folder(url: str) -> Path:
    """The SQL files: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    root = installed if installed.is_dir() else package.parent / "migrations"
    return root / ("sqlite" if _is_sqlite(url) else "postgresql")


def _applied(url: str) -> set[str]:
    return _applied_sqlite(url) if _is_sqlite(url) else _applied_postgresql(url)


def _applied_sqlite(url: str) -> set[str]:
    path = Path(url.removeprefix(SQLITE_PREFIX))
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        if connection.execute(_HAS_RECORD_SQLITE).fetchone() is None:
            return set()
        return {row[0] for row in connection.execute(_APPLIED)}


def _applied_postgresql(url: str) -> set[str]:
    with _connect(url) as connection:
        found = connection.execute(_HAS_RECORD_POSTGRESQL).fetchone()
        if not found or not found[0]:
            return set()
        return {row[0] for row in connection.execute(_APPLIED)}


def _apply(url: str) -> list[str]:
    if _is_sqlite(url):
        _prepare_file(Path(url.removeprefix(SQLITE_PREFIX)))
    with get_backend(_yoyo_url(url)) as backend:
        # The lock of `_one_process` dies with its holder, yoyo's does not: with the first in
        # hand, a row of the second is a dead process's.
        backend.break_lock()
        backend.ensure_internal_schema_updated()
        with backend.lock():
            todo = backend.to_apply(read_migrations(str(_folder(url))))
            for migration in todo:
                _apply_one(backend, migration)
            return [migration.id for migration in todo]


def _apply_one(backend: Any, migration: Any) -> None:
    """Yoyo's own apply records in a second transaction; a kill between them would be for ever."""
    with backend.transaction():
        migration.process_steps(backend, "apply")
        backend.mark_one(migration, log=False)


def _prepare_file(path: Path) -> None:
    """Make the file its owner's alone: it holds payloads. SQLite gives its log the same mode.

    Both settings stay with the file; the first has no effect once a table exists.
    """
    path.touch(mode=0o600, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")


@contextlib.contextmanager
def _one_process(url: str) -> Iterator[None]:
    lock = _folder_lock(url) if _is_sqlite(url) else _advisory_lock(url)
    with lock:
        yield


@contextlib.contextmanager
def _folder_lock(url: str) -> Iterator[None]:
    """Lock the folder, not the file: closing a second handle of the file drops SQLite's locks."""
    folder = Path(url.removeprefix(SQLITE_PREFIX)).parent
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _advisory_lock(url: str) -> Iterator[None]:
    """Held by a transaction, not by the session, so that it holds behind pgbouncer too."""
    with _connect(url) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        yield


def _connect(url: str) -> psycopg.Connection[Any]:
    options = {"connect_timeout": CONNECT_TIMEOUT_SECONDS, **conninfo_to_dict(url)}
    return psycopg.connect(make_conninfo("", **options), autocommit=True, prepare_threshold=None)


def _yoyo_url(url: str) -> str:
    """The address in yoyo's form; a path or a password may hold characters that it would split."""
    if _is_sqlite(url):
        return SQLITE_PREFIX + quote(url.removeprefix(SQLITE_PREFIX))
    options = {"connect_timeout": CONNECT_TIMEOUT_SECONDS, **conninfo_to_dict(url)}
    return f"postgresql+psycopg:///?{urlencode(options)}"


@contextlib.contextmanager
def _errors_mapped() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise OutboxUnavailableError(f"The outbox's database can't be used: {exc}") from exc
    except (psycopg.Error, OSError) as exc:  # libpq may quote the address, password and all
        raise OutboxUnavailableError(
            f"The outbox's database can't be used: {type(exc).__name__}"
        ) from exc
