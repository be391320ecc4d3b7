"""The seal of a PostgreSQL outbox: while a move writes, the database refuses every other writer.

Even a service that the move did not see can't write a sealed outbox.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from service.outbox.postgres.notify import SERVED_LOCK_CLASS, SERVED_LOCK_NUMBER

# Every service's listening session holds the lock.
SERVED = f"""
SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %(class)s
       AND objid = {SERVED_LOCK_NUMBER}
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""

# A write to a sealed outbox fails, except in the session of the move.
PUT_ON = """
CREATE TRIGGER outbox_sealed BEFORE INSERT OR UPDATE OR DELETE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse()
"""
TAKE_OFF = "DROP TRIGGER IF EXISTS outbox_sealed ON {table}"
SEALED = ("outbox", "outbox_ready", "outbox_claims", "outbox_sent", "outbox_done")


class PostgresSeal:
    """Seals the tables of the outbox behind `connection`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def is_served(self) -> bool:
        """Whether a service listens to the outbox."""
        values = {"class": SERVED_LOCK_CLASS}
        [(served,)] = self._connection.execute(SERVED, values).fetchall()
        return bool(served)

    def put_on(self) -> None:
        """Refuse writes by all sessions but this one. Safe to repeat."""
        self._apply(TAKE_OFF, PUT_ON)

    def take_off(self) -> None:
        """Accept writes again. Safe to repeat."""
        self._apply(TAKE_OFF)

    def _apply(self, *statements: str) -> None:
        with self._connection.transaction():
            self._connection.execute("SET LOCAL lock_timeout = '10s'")
            for table in SEALED:
                for statement in statements:
                    query = sql.SQL(statement).format(table=sql.Identifier(table))
                    self._connection.execute(query)
