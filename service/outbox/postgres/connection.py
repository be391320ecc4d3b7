"""One connection to PostgreSQL, and the settings of its session.

Without a pooler in between, the session has timeouts on the server, uses no just-in-time
compilation, prepares its statements and plans each of them once, whatever its values. A pooler is
recognised by the process id: it reports another one than the backend. Then nothing is kept in the
session, but for prepared statements where the role or the database has `outbox.prepare` on.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

# TCP notices a peer that vanished, even while no statement runs.
_CONNECTION: dict[str, str | int | None] = {
    "connect_timeout": 2,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
    "application_name": "outbox",
}

# A plan that is made once must hold when the tables have grown, so it uses indexes in their order,
# even of tables that are empty.
# A statement that waits for a lock ends on the server before its caller gives up, so it never runs
# later. A commit that waits for a standby has no limit.
SET_UP = """
SELECT count(set_config(name, setting, false)) > 0
       OR coalesce(current_setting('outbox.prepare', true), '') = 'on'
FROM (VALUES
    ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan'),
    ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'),
    ('lock_timeout', '1500ms'), ('statement_timeout', '12s'),
    ('idle_in_transaction_session_timeout', '15s'),
    ('default_transaction_isolation', 'read committed'),
    ('search_path', (SELECT relnamespace::regnamespace::text || ', pg_temp' FROM pg_class
                     WHERE oid = to_regclass('outbox_meta')))
) AS wanted (name, setting) WHERE pg_backend_pid() = %(backend)s
"""

_PREPARE_AFTER = 3


class OutboxConnection(psycopg.AsyncConnection[Any]):
    """A connection that remembers whether the server warned about its last statement."""

    warned = False


def connection_string(url: str) -> str:
    """The address in libpq's form with timeouts, unless `url` sets its own."""
    return make_conninfo("", **{**_CONNECTION, **conninfo_to_dict(url)})


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
