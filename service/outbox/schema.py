"""The schema of an outbox: which migrations there are, which are applied, and applying them.

Migrations are numbered SQL files, the same numbers in both dialects, forward only. Code that knows
migration N also runs on schema N+1, so that processes can be replaced one by one. The invariant: a
migration and its record commit together, and one process applies at a time. A process killed at any
moment leaves the schema before or after a migration, and nothing to unlock by hand.
Everything here blocks: call it before the event loop or in a thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import psycopg

from service.config.outbox_url import redacted_url, sqlite_file
from service.errors import OutboxUnavailableError, SchemaTooNewError
from service.outbox.fault_postgresql import fault_at
from service.outbox.file_fault import file_fault
from service.outbox.schema_postgresql import PostgresSchema
from service.outbox.schema_sqlite import SqliteSchema


class Schema(Protocol):
    """The schema of one database."""

    def applied(self) -> set[str]:
        """The ids of the migrations that are applied. Changes nothing, makes no file."""
        ...

    def apply(self, migrations: Sequence[tuple[str, str]]) -> list[str]:
        """Apply those (id, SQL) that are not applied yet, one transaction each; returns their ids.

        Other processes that apply wait.
        """
        ...


def migrate(url: str) -> list[str]:
    """Bring the outbox at `url` to the schema that this code knows; returns the ids applied.

    Safe to repeat and to call from several processes at once: the others wait. Makes the file
    and its folder for SQLite. Raises SchemaTooNewError, and OutboxUnavailableError when the
    database can't be reached or written; the migration under way then left no trace.
    """
    if not pending(url):
        return []
    files = migration_files("postgresql" if sqlite_file(url) is None else "sqlite")
    with _errors_mapped(url):
        return _schema(url).apply([(path.stem, path.read_text()) for path in files])


def pending(url: str) -> list[str]:
    """The ids that `migrate` would apply, oldest first. Changes nothing, makes no file.

    Raises SchemaTooNewError and OutboxUnavailableError.
    """
    with _errors_mapped(url):
        applied = _schema(url).applied()
    known = known_ids()
    if any(_number(one) > _number(known[-1]) + 1 for one in applied.difference(known)):
        raise SchemaTooNewError
    return [one for one in known if one not in applied]


def known_ids() -> list[str]:
    """The ids of the migrations, oldest first, the same in both dialects."""
    return [path.stem for path in migration_files("sqlite")]


def _schema(url: str) -> Schema:
    file = sqlite_file(url)
    return PostgresSchema(url) if file is None else SqliteSchema(Path(file))


def migration_files(dialect: str) -> list[Path]:
    """The SQL files of `sqlite` or `postgresql`, oldest first.

    They are beside the package in a checkout, inside it in an installed wheel.
    """
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    root = installed if installed.is_dir() else package.parent / "migrations"
    return sorted((root / dialect).glob("*.sql"))


def _number(migration_id: str) -> int:
    """The number of a migration.

    >>> _number("0012_places")
    12
    """
    return int(migration_id.partition("_")[0])


@contextlib.contextmanager
def _errors_mapped(url: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise OutboxUnavailableError(f"{sqlite_file(url)} can't be used: {exc}.") from exc
    except psycopg.Error as exc:
        raise OutboxUnavailableError(fault_at(url, exc)) from exc
    except OSError as exc:
        place = sqlite_file(url) or redacted_url(url)
        raise OutboxUnavailableError(file_fault(place, exc)) from exc
