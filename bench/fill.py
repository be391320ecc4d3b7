"""A backlog made at once: rows of the real schema, as posts would have left them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from inngest_outbox.outbox.schema import migrate

_USERS = 1000

_FILL = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count),
     named AS (SELECT n, printf('01900000-0000-7000-8000-%012x', n) AS id, 'u-' || n % :users AS who
               FROM numbers)
INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, meta, payload)
SELECT id, 'documents/aws.index', who, who, :now,
    iif(:traced, printf('{"trace":"00-%032x-b7ad6b7169203331-01"}', n), NULL), CAST(printf(
    '{"id":"%s","name":"documents/aws.index","ts":%d,"v":"1","user":{"id":"%s",'
    || '"email":"ada@example.com","name":"Ada"},"data":{"documentName":"example",'
    || '"bucket":"documents","region":"eu-west-1","appSettings":{}}}', id, :now, who) AS BLOB)
FROM named
"""
_MAKE_READY = """
INSERT INTO outbox_ready (seq, payload_bytes) SELECT seq, length(payload) FROM outbox
"""


def fill(path: Path, count: int, *, traced: bool = False) -> None:
    """Make an outbox at `path` with `count` pending rows, of which nothing runs yet.

    With `traced`, each row has a trace of its own.
    """
    migrate(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        now = int(time.time() * 1000)
        values = {"count": count, "users": _USERS, "now": now, "traced": traced}
        connection.execute(_FILL, values)
        connection.execute(_MAKE_READY)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # Else the first checkpoint of what is measured writes all these rows to the disk.
    with path.open("rb") as file:
        os.fsync(file.fileno())
