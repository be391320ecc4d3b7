"""Rows of an event which the file lacks: only a damaged file has them."""

from __future__ import annotations

import sqlite3

from service.outbox.sqlite.damage import SENTENCE

# Bounded: the rows that are claimed first and last, and those whose confirmation comes first.
MISSING = """
SELECT count(*) FROM (
    SELECT seq FROM (SELECT seq FROM outbox_ready ORDER BY seq LIMIT 1000)
    UNION SELECT seq FROM (SELECT seq FROM outbox_ready ORDER BY seq DESC LIMIT 1000)
    UNION SELECT seq FROM (SELECT seq FROM outbox_claims ORDER BY seq LIMIT 10000)
    UNION SELECT seq FROM (SELECT seq FROM outbox_sent ORDER BY seq LIMIT 1000)
) AS waiting WHERE NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.seq = waiting.seq)
"""

# The same of every table, between two numbers.
MISSING_BETWEEN = """
SELECT count(*) FROM (
    SELECT seq FROM outbox_ready WHERE seq > :after AND seq <= :upto
    UNION SELECT seq FROM outbox_claims WHERE seq > :after AND seq <= :upto
    UNION SELECT seq FROM outbox_sent WHERE seq > :after AND seq <= :upto
    UNION SELECT seq FROM outbox_done WHERE seq > :after AND seq <= :upto
) AS named WHERE NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.seq = named.seq)
"""

# The number and place of each such row.
MISSING_ROWS = """
SELECT seq, min(state) FROM (
    SELECT seq, 'pending' AS state FROM outbox_ready
    UNION ALL SELECT seq, 'delivering' FROM outbox_claims
    UNION ALL SELECT seq, 'sent' FROM outbox_sent
    UNION ALL SELECT seq, iif(dead, 'dead', 'delivered') FROM outbox_done
) AS named WHERE NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.seq = named.seq)
GROUP BY seq ORDER BY seq
"""


def count_missing(connection: sqlite3.Connection) -> int:
    """How many of the waiting rows name a missing event, among some thousands of them."""
    [(count,)] = connection.execute(MISSING).fetchall()
    return int(count)


def missing_events(count: int) -> sqlite3.DatabaseError:
    """The error of so many rows without their events, as SQLite would raise it."""
    error = sqlite3.DatabaseError(f"{_words(count)}.")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"
    return error


def missing_fault(count: int) -> str:
    """The same for a person, with what to do."""
    return f"{_words(count)}. {SENTENCE}"


def _words(count: int) -> str:
    if count == 1:
        return "1 waiting row names an event that the file lacks"
    return f"{count:,} waiting rows name events that the file lacks"
