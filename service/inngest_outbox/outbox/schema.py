"""The schema of an outbox: which migrations there are, which are applied, and applying them.

Migrations are numbered SQL files, the same numbers in both dialects, forward only. Code that knows
migration N also runs on schema N+1, so that processes can be replaced one by one. The invariant:
the migrations of a version and their records commit together, and one process applies at a time. A
process killed at any moment leaves the schema before or after them, and nothing to unlock by hand.
Everything here blocks: call it before the event loop or in a thread.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from inngest_outbox.config.outbox_url import file_fault, redacted_url, sqlite_file
from inngest_outbox.errors import OutboxUnavailableError, SchemaTooNewError, SchemaTooOldError
from inngest_outbox.outbox.sqlite.file.schema import SqliteSchema

log = structlog.get_logger(__name__)


class Schema(Protocol):
    """The schema of one database."""

    def applied(self) -> set[str]:
        """The ids of the migrations that are applied. Changes nothing, makes no file."""
        ...

    def apply(self, migrations: Sequence[tuple[str, str]]) -> list[str]:
        """Apply those (id, SQL) that are not applied yet, in one transaction; returns their ids.

        Other processes that apply wait.
        """
        ...


def migrate(url: str) -> list[str]:
    """Bring the outbox at `url` to the schema that this code knows; returns the ids applied.

    Safe to repeat and to call from several processes at once: the others wait. Makes the file
    and its folder for SQLite. Raises SchemaTooNewError, SchemaTooOldError, and
    OutboxUnavailableError when the database can't be reached or written; what was under way then
    left no trace. Warns when a later version has applied the next migration: this one can't run on
    the one after.
    """
    applied, known = _applied(url), known_ids(_dialect(url))
    missing = missing_of(applied, known)
    _warn_of_newer(applied, known[-1])
    if not missing:
        return []
    with _errors_mapped(url):
        return _schema(url).apply(_migrations(_dialect(url)))


def pending(url: str) -> list[str]:
    """The ids that `migrate` would apply, oldest first. Changes nothing, makes no file.

    Raises SchemaTooNewError, SchemaTooOldError and OutboxUnavailableError.
    """
    return missing_of(_applied(url), known_ids(_dialect(url)))


def known_ids(dialect: str = "sqlite") -> list[str]:
    """The ids of the migrations, oldest first."""
    return [migration_id for migration_id, _ in _migrations(dialect)]


def _dialect(url: str) -> str:
    return "postgresql" if sqlite_file(url) is None else "sqlite"


def _applied(url: str) -> set[str]:
    with _errors_mapped(url):
        return _schema(url).applied()


def missing_of(applied: set[str], known: Sequence[str]) -> list[str]:
    """The known ids that are not applied. Raises SchemaTooNewError and SchemaTooOldError."""
    last, others = _number(known[-1]), [_number(one) for one in applied.difference(known)]
    if any(number <= last for number in others):
        raise SchemaTooOldError
    if any(number > last + 1 for number in others):
        raise SchemaTooNewError
    return [one for one in known if one not in applied]


def _warn_of_newer(applied: set[str], known: str) -> None:
    if max(applied, default=known) > known:
        log.warning(
            "schema_is_newer",
            applied=max(applied),
            known=known,
            until=f"{_number(known) + 2:04}",
        )


@functools.cache
def _migrations(dialect: str) -> tuple[tuple[str, str], ...]:
    """The (id, SQL) of this version's migrations, oldest first.

    They are read once: a newer version may be installed while this one runs.
    """
    return tuple((path.stem, path.read_text()) for path in migration_files(dialect))


def _schema(url: str) -> Schema:
    file = sqlite_file(url)
    if file is not None:
        return SqliteSchema(Path(file))
    # An SQLite outbox needs no driver.
    from inngest_outbox.outbox.postgres.database.schema import PostgresSchema

    return PostgresSchema(url)


def migration_files(dialect: str) -> list[Path]:
    """The SQL files of `sqlite` or `postgresql`, oldest first.

    They are beside the package in a checkout, inside it in an installed wheel.
    """
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    root = installed if installed.is_dir() else package.parents[1] / "migrations"
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
    except OSError as exc:
        place = sqlite_file(url) or redacted_url(url)
        raise OutboxUnavailableError(file_fault(place, exc)) from exc
