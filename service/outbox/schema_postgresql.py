"""Applying migrations to a PostgreSQL database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.errors import OutboxUnavailableError
from service.outbox.fault_postgresql import fault_at

CONNECT_TIMEOUT_SECONDS = 5
ADVISORY_LOCK = 0x6F7574626F78  # "outbox"

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
# A role's own schema comes first in the search path; it may have the name of the schema that
# applications call.
_PIN = """
SELECT set_config('search_path', relnamespace::regnamespace::text || ', pg_temp', true)
FROM pg_class WHERE oid = to_regclass('outbox_migrations')
"""
# The first migration makes the schema.
_SCHEMA = """
SELECT name FROM trim(split_part(current_setting('search_path'), ',', 1), ' "') AS name
WHERE to_regnamespace(quote_ident(name)) IS NULL AND name <> '$user'
"""
_LOCK = "SELECT pg_advisory_xact_lock(%s)"
_HAS_RECORD = "SELECT to_regclass('outbox_migrations') IS NOT NULL"
_MAKE_RECORD = """
CREATE TABLE outbox_migrations (
    id text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_APPLIED = "SELECT id FROM outbox_migrations"
_RECORD = "INSERT INTO outbox_migrations (id) VALUES (%s)"


class PostgresSchema:
    """The schema of the database at `url`. Raises OutboxUnavailableError with its sentence."""

    def __init__(self, url: str) -> None:
        self._url = url

    def applied(self) -> set[str]:
        """The ids of the migrations that are applied. Changes nothing."""
        with self._connected() as connection:
            return _applied(connection)

    def apply(self, migrations: Sequence[tuple[str, str]]) -> list[str]:
        """Apply those that are not applied yet, one transaction each; returns their ids.

        Each transaction takes the lock, so that it holds behind pgbouncer too.
        """
        with self._connected() as connection:
            return [one[0] for one in migrations if _apply_one(connection, *one)]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            with self._connect() as connection:
                yield connection
        except psycopg.Error as exc:
            raise OutboxUnavailableError(fault_at(self._url, exc)) from exc

    def _connect(self) -> psycopg.Connection[Any]:
        options = {"connect_timeout": CONNECT_TIMEOUT_SECONDS, **conninfo_to_dict(self._url)}
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


def _applied(connection: psycopg.Connection[Any]) -> set[str]:
    if not connection.execute(_HAS_RECORD).fetchall()[0][0]:
        return set()
    return {one for (one,) in connection.execute(_APPLIED)}


def _apply_one(connection: psycopg.Connection[Any], migration_id: str, text: str) -> bool:
    """Whether this process applied it."""
    with connection.transaction():
        connection.execute(_NO_TIMEOUTS)
        connection.execute(_LOCK, (ADVISORY_LOCK,))
        connection.execute(_LIMITS)
        connection.execute(_PIN)
        if not connection.execute(_HAS_RECORD).fetchall()[0][0]:
            for (schema,) in connection.execute(_SCHEMA).fetchall():
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            connection.execute(_MAKE_RECORD)
        elif migration_id in _applied(connection):
            return False
        connection.execute(text.encode())
        connection.execute(_RECORD, (migration_id,))
        return True
