"""The schema of an outbox in PostgreSQL: applying migrations, and who else may create in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from inngest_outbox.errors import DatabaseAwayError, OutboxUnavailableError
from inngest_outbox.outbox.postgres.database.connection import (
    connection_string,
    in_schema,
    schema_of,
)
from inngest_outbox.outbox.postgres.database.faults import fault_at

CONNECT_TIMEOUT_SECONDS = 5
_BEFORE = {"0001_outbox"}  # what a development state before 0.1.0 has
_TRIES = 10

_PATH = "SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)"
# A wait for another process's migration, or a migration of a large outbox, may take longer than a
# role or a database allows a session. Since PostgreSQL 14 the migration of a killed process ends
# within 2 s, and with it its lock.
_NO_TIMEOUTS = """
SELECT set_config(name, CASE name WHEN 'client_connection_check_interval' THEN '2s' ELSE '0' END,
                  true)
FROM pg_settings
WHERE name IN ('lock_timeout', 'statement_timeout', 'transaction_timeout',
               'idle_in_transaction_session_timeout', 'client_connection_check_interval')
"""
# A migration that waits for a table's lock blocks every later statement: it gives up instead.
_LIMITS = "SET LOCAL lock_timeout = '10s'"
_HAS_TABLE = """
SELECT EXISTS (SELECT FROM pg_class WHERE relname = %s AND relnamespace = ANY(
    SELECT oid FROM pg_namespace WHERE nspname = ANY(%s)))
"""
_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)"
_RECORD = """
CREATE TABLE IF NOT EXISTS outbox.migrations (
    id text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
# The lock is on our own table: a role that may only connect can't hold it.
_LOCK = "LOCK TABLE outbox.migrations IN EXCLUSIVE MODE"
_OTHERS = """
SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
FROM pg_namespace, aclexplode(nspacl)
WHERE nspname = %s AND privilege_type = 'CREATE' AND grantee <> nspowner
      AND grantee <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
ORDER BY 1
"""

log = structlog.get_logger(__name__)


class PostgresSchema:
    """The schema of the database at `url`. Raises OutboxUnavailableError with its sentence."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = schema_of(url)

    def applied(self) -> set[str]:
        """The ids of the migrations that are applied. Changes nothing."""
        with self._connected() as connection, _transaction(connection):
            return self._applied(connection)

    def apply(self, migrations: Sequence[tuple[str, str]]) -> list[str]:
        """Apply those that are not applied yet, in one transaction; returns their ids."""
        with self._connected() as connection:
            for _ in range(_TRIES):
                # Another process may make the schema at the same moment.
                with contextlib.suppress(psycopg.errors.UniqueViolation):
                    return self._apply(connection, migrations)
            raise OutboxUnavailableError

    def others(self) -> list[str]:
        """The roles beside the owner that may create objects in the schema."""
        with self._connected() as connection, _transaction(connection):
            return [role for (role,) in connection.execute(_OTHERS, (self._name,))]

    def _apply(
        self, connection: psycopg.Connection[Any], migrations: Sequence[tuple[str, str]]
    ) -> list[str]:
        with _transaction(connection):
            connection.execute(_NO_TIMEOUTS)
            if not _first(connection, _HAS_SCHEMA, self._name):
                name = sql.Identifier(self._name)
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
            self._run(connection, _RECORD)
            self._run(connection, _LOCK)
            connection.execute(_LIMITS)
            applied = self._applied(connection)
            missing = [one for one in migrations if one[0] not in applied]
            for migration_id, text in missing:
                self._run(connection, text)
                self._run(connection, f"INSERT INTO outbox.migrations VALUES ('{migration_id}')")
            return [migration_id for migration_id, _ in missing]

    def _applied(self, connection: psycopg.Connection[Any]) -> set[str]:
        if _first(connection, _HAS_TABLE, "outbox_migrations", [self._name, "public"]):
            return _BEFORE
        if not _first(connection, _HAS_TABLE, "migrations", [self._name]):
            return set()
        return {one for (one,) in self._run(connection, "SELECT id FROM outbox.migrations")}

    def _run(self, connection: psycopg.Connection[Any], text: str) -> psycopg.Cursor[Any]:
        return connection.execute(in_schema(text, self._name).encode())

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            with self._connect() as connection:
                yield connection
        except psycopg.Error as exc:
            is_away = isinstance(exc, psycopg.OperationalError)
            kind = DatabaseAwayError if is_away else OutboxUnavailableError
            raise kind(fault_at(self._url, exc)) from exc

    def _connect(self) -> psycopg.Connection[Any]:
        given = conninfo_to_dict(connection_string(self._url))
        timeout = conninfo_to_dict(self._url).get("connect_timeout", CONNECT_TIMEOUT_SECONDS)
        options = {**given, "connect_timeout": timeout}
        connection = psycopg.connect(
            make_conninfo("", **options), autocommit=True, prepare_threshold=None
        )
        # Who has waited for the lock sees what its holder has applied.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            connection.close()
            raise OutboxUnavailableError(
                f"The outbox's database has the encoding {encoding}. Make one with "
                "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
            )
        return connection


@contextlib.contextmanager
def _transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """A transaction in which no schema of others is searched; it leaves nothing in the session."""
    with connection.transaction():
        connection.execute(_PATH)
        yield


def fault_of_others(url: str) -> str | None:
    """A sentence when others may create objects in the outbox's schema.

    They could run code as the service's role. Raises OutboxUnavailableError.
    """
    if others := PostgresSchema(url).others():
        return (
            f"{', '.join(others)} may create objects in the outbox's schema {schema_of(url)}; "
            f"REVOKE CREATE ON SCHEMA {schema_of(url)} FROM {', '.join(others)}."
        )
    return None


def warn_of_others(url: str) -> None:
    """Log a warning when others may create objects in the outbox's schema."""
    if fault := fault_of_others(url):
        log.warning("schema_open_to_others", fault=fault)


def _first(connection: psycopg.Connection[Any], statement: str, *given: object) -> Any:
    return connection.execute(statement.encode(), given).fetchall()[0][0]
