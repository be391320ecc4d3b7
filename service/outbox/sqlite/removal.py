"""Removing rows for good, and the bytes that this frees."""

from __future__ import annotations

import sqlite3

from service.outbox.sqlite.quota import BytesCount

# Rows after :counted_to and up to :newest are not in the counts yet.
REMOVED_BYTES = """
SELECT owner, sum(length(payload)) FROM json_each(:seqs) CROSS JOIN outbox ON seq = value
WHERE seq <= :counted_to OR seq > :newest GROUP BY owner
"""
_NAMED = "WHERE seq IN (SELECT value FROM json_each(:seqs))"
REMOVE_READY = f"DELETE FROM outbox_ready {_NAMED}"
REMOVE_SENT = f"DELETE FROM outbox_sent {_NAMED}"
REMOVE_DONE = f"DELETE FROM outbox_done {_NAMED}"
REMEMBER_LAST = """
UPDATE outbox_meta SET last_seq = (SELECT max(value) FROM json_each(:seqs))
WHERE last_seq < (SELECT max(value) FROM json_each(:seqs))
"""
REMOVE_ROW = f"DELETE FROM outbox {_NAMED}"


class Removal:
    """Removes rows that are under no claim."""

    def __init__(self, bytes_count: BytesCount) -> None:
        self._bytes_count = bytes_count

    def remove(self, connection: sqlite3.Connection, seqs: str) -> tuple[dict[str, int], int]:
        """Remove the rows of a JSON array.

        Returns the counted bytes by owner, and how many rows.
        """
        count = self._bytes_count
        values = {"seqs": seqs, "counted_to": count.counted_to, "newest": count.newest}
        freed = dict(connection.execute(REMOVED_BYTES, values).fetchall())
        for statement in (REMEMBER_LAST, REMOVE_READY, REMOVE_SENT, REMOVE_DONE):
            connection.execute(statement, {"seqs": seqs})
        return freed, connection.execute(REMOVE_ROW, {"seqs": seqs}).rowcount
