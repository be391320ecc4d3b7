"""One connection to PostgreSQL, the settings of its session, and the statements of the store.

Without a pooler in between, the session has timeouts on the server, uses no just-in-time
compilation, prepares its statements and plans each of them once, whatever its values. A pooler is
recognised by the process id: it reports another one than the backend. Then nothing is kept in the
session, but for prepared statements where the role or the database has `outbox.prepare` on.
The outbox's schema is in no search path: every name of ours is qualified.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from inngest_outbox.outbox.queries import read_queries

DEFAULT_SCHEMA = "outbox"

# TCP notices a peer that vanished, even while no statement runs.
_CONNECTION: dict[str, str | int | None] = {
    "connect_timeout": 2,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
    "application_name": "outbox",
    "client_encoding": "UTF8",  # a role or a database may have another one set
}

# A plan that is made once must hold when the tables have grown, so it uses indexes in their order,
# even of tables that are empty.
# A statement that waits for a lock ends on the server before its caller gives up, so it never runs
# later. A commit that waits for a standby has no limit.
SET_UP = """
SELECT pg_catalog.count(pg_catalog.set_config(name, setting, false)) > 0
       OR coalesce(pg_catalog.current_setting('outbox.prepare', true), '') = 'on'
FROM (VALUES
    ('search_path', 'pg_catalog, pg_temp'), ('standard_conforming_strings', 'on'),
    ('array_nulls', 'on'),
    ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan'),
    ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'),
    ('lock_timeout', '1500ms'), ('statement_timeout', '12s'),
    ('idle_in_transaction_session_timeout', '15s'),
    ('default_transaction_isolation', 'read committed')
) AS wanted (name, setting)
WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) %(backend)s
"""

SOURCES = ("events", "ready", "pending", "delivering", "sent", "delivered", "dead")
"""Where lists of rows begin: the views `in_…` of the schema."""

_PREPARE_AFTER = 3
_OPTION = re.compile(r"-coutbox\.schema=(\w+)\s*")
_OURS = re.compile(r"\boutbox\.(?=\w)")


class OutboxConnection(psycopg.AsyncConnection[Any]):
    """A connection that remembers whether the server warned about its last statement."""

    warned = False


def connection_string(url: str) -> str:
    """The address in libpq's form with timeouts, unless `url` sets its own."""
    given = conninfo_to_dict(url)
    if options := _OPTION.sub("", str(given.pop("options", None) or "")).strip():
        given["options"] = options
    return make_conninfo("", **{**_CONNECTION, **given})


def schema_of(url: str) -> str:
    """The schema of the outbox at `url`, as `url_in_schema` puts it there."""
    with contextlib.suppress(psycopg.Error):  # an address that can't be read has none
        if named := _OPTION.search(str(conninfo_to_dict(url).get("options") or "")):
            return named[1]
    return DEFAULT_SCHEMA


def in_schema(text: str, schema: str) -> str:
    """SQL with the quoted name of the outbox's schema.

    >>> in_schema("SELECT seq FROM outbox.ready", "queue")
    'SELECT seq FROM "queue".ready'
    """
    return _OURS.sub(f'"{schema}".', text)


@functools.cache
def statements(schema: str) -> Mapping[str, bytes]:
    """The statements of the store by name, for the outbox in `schema`; read once.

    Those that list rows, ROWS, COUNT and REACH, have the name of their source too.
    """
    queries = read_queries(Path(__file__).parent.parent / "queries")
    queries["COUNT"] = f"/* COUNT */ SELECT count(*) FROM ({queries['ROWS']}) AS found"
    for name in ("ROWS", "COUNT", "REACH"):
        text = queries.pop(name)
        for source in SOURCES:
            queries[f"{name} {source}"] = text.replace("outbox.source", f"outbox.in_{source}")
    return {name: in_schema(text, schema).encode() for name, text in queries.items()}


async def set_up(connection: OutboxConnection) -> None:
    """Set up a new connection."""
    connection.add_notice_handler(lambda notice: _heed(connection, notice))
    given = {"backend": connection.info.backend_pid}
    cursor = await connection.execute(SET_UP, given, prepare=False)
    [(prepares,)] = await cursor.fetchall()
    connection.prepare_threshold = _PREPARE_AFTER if prepares else None


def shut(connection: psycopg.AsyncConnection[Any]) -> None:
    """Shut down the socket: a wait for an answer ends at once."""
    with contextlib.suppress(OSError, psycopg.Error):
        handle = socket.socket(fileno=os.dup(connection.fileno()))
        with contextlib.closing(handle):
            handle.shutdown(socket.SHUT_RDWR)


def _heed(connection: OutboxConnection, notice: psycopg.errors.Diagnostic) -> None:
    if notice.severity_nonlocalized == "WARNING":
        connection.warned = True
