"""What one hop to the database thread does: a transaction over works of several kinds.

All or nothing: whatever fails, nothing of the transaction is left.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from service.outbox.sqlite.work import Kind

# Writes a page each time; an UPDATE that changes nothing writes none.
TOUCH = "PRAGMA user_version = 0"


def transact(
    connection: sqlite3.Connection,
    works: Sequence[tuple[Kind[Any, Any], Sequence[Any]]],
    mode: str | None,
) -> list[Sequence[Any]]:
    """Apply every kind's works and commit; the results of each. After `mode`, if there is one.

    Without works it writes something all the same, so that its sync takes earlier commits along.
    """
    if mode:
        connection.execute(mode)
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [kind.apply(connection, waiting) for kind, waiting in works]
        if not works:
            connection.execute(TOUCH)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def write_something(connection: sqlite3.Connection) -> None:
    """Find out whether the file can be written."""
    # A checkpoint makes room in a log that filled the disk.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    connection.execute(TOUCH)
