"""A migration that does not end by itself."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import psycopg

from inngest_outbox.config.outbox_url import sqlite_file

ENDLESS = "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n;"
ENDLESS_ON_POSTGRES = "SELECT pg_sleep(3600);"
# On the record of migrations, which the one that makes it has not committed yet.
_LOCKS = """
SELECT 1 FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
WHERE datname = current_database() AND granted AND locktype = 'relation' AND mode = 'ExclusiveLock'
"""


async def is_migrating(url: str) -> bool:
    """True while a process holds the lock under which it migrates the outbox at `url`."""
    file = sqlite_file(url)
    if file is None:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            locks = await connection.execute(_LOCKS)
            return bool(await locks.fetchall())
    handle = os.open(Path(file).parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
