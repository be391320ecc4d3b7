"""A migration that does not end by itself."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

ENDLESS = "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n;"


async def is_migrating(folder: Path) -> bool:
    """True while a process holds the lock under which it migrates an SQLite file in `folder`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
