"""Rows of an SQLite outbox that Inngest has answered, until it is known to hold their events.

The invariant: a row leaves `outbox_sent` in the statement pair that puts it into `outbox_done` or
back into `outbox_ready`, in one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from service.outbox.clock import wall_now_ms
from service.outbox.inngest_id import InngestIds
from service.outbox.model import SentEntry
from service.outbox.sqlite.changes import Job, Removed

PREFIX = "SELECT inngest_id_prefix FROM outbox_meta"
COUNT_SENT = "SELECT count(*) FROM outbox_sent"

SENT = """
SELECT seq, event_id, accepted_at_ms, max(0, :now - sent_at_ms) / 1000.0, sends, inngest_id
FROM outbox_sent CROSS JOIN outbox USING (seq)
WHERE seq > :after ORDER BY seq LIMIT :limit
"""
DELIVERED = """
SELECT seq, event_id, accepted_at_ms, max(0, :now - settled_at_ms) / 1000.0, sends, inngest_id
FROM outbox_done CROSS JOIN outbox USING (seq)
WHERE seq > :after AND dead = 0 AND settled_at_ms >= :since ORDER BY seq LIMIT :limit
"""

CONFIRM_DONE = """
INSERT INTO outbox_done (seq, dead, settled_at_ms, isolated, attempts, sends, first_sent_at_ms,
                         history)
SELECT seq, 0, :now, isolated, attempts, sends, first_sent_at_ms, history
FROM json_each(:seqs) CROSS JOIN outbox_sent ON seq = value
"""
RESEND_OWNERS = """
SELECT event_id, owner FROM json_each(:seqs) CROSS JOIN outbox_sent ON seq = value
    CROSS JOIN outbox USING (seq)
"""
# The answer that was lost counts no attempt.
RESEND_READY = """
INSERT INTO outbox_ready (seq, payload_bytes, isolated, attempts, sends, first_sent_at_ms, history)
SELECT seq, length(payload), isolated, attempts - 1, sends, first_sent_at_ms,
       json_insert(
           CASE WHEN history IS NULL THEN '[]'
                WHEN json_array_length(history) < 20 THEN history
                ELSE json_remove(history, '$[0]') END,
           '$[#]', json_object('at', :now, 'note', :note))
FROM json_each(:seqs) CROSS JOIN outbox_sent ON seq = value CROSS JOIN outbox USING (seq)
"""
FORGET_SENT = "DELETE FROM outbox_sent WHERE seq IN (SELECT value FROM json_each(:seqs))"


def inngest_ids(connection: sqlite3.Connection) -> InngestIds:
    """How the ULIDs of this outbox's rows follow from them."""
    [(prefix,)] = connection.execute(PREFIX).fetchall()
    return InngestIds(bytes(prefix))


def count_sent(connection: sqlite3.Connection) -> int:
    """How many rows are sent."""
    [(count,)] = connection.execute(COUNT_SENT).fetchall()
    return int(count)


def sent(connection: sqlite3.Connection, limit: int, after_seq: int) -> list[SentEntry]:
    """A page of sent rows."""
    values = {"now": wall_now_ms(), "after": after_seq, "limit": limit}
    return [SentEntry(*row) for row in connection.execute(SENT, values)]


def delivered(
    connection: sqlite3.Connection, limit: int, after_seq: int, within_seconds: float | None
) -> list[SentEntry]:
    """A page of delivered rows."""
    now = wall_now_ms()
    since = 0 if within_seconds is None else now - int(within_seconds * 1000) + 1
    values = {"now": now, "after": after_seq, "limit": limit, "since": since}
    return [SentEntry(*row) for row in connection.execute(DELIVERED, values)]


def confirm(seqs: Sequence[int]) -> Job[int]:
    """Sent rows become delivered; how many were still sent."""

    def job(connection: sqlite3.Connection) -> int:
        values = {"seqs": msgspec.json.encode(seqs).decode(), "now": wall_now_ms()}
        connection.execute(CONFIRM_DONE, values)
        return connection.execute(FORGET_SENT, values).rowcount

    return job


def resend(seqs: Sequence[int], note: str) -> Job[Removed]:
    """Sent rows become pending; their ids, and how many of each owner are pending again."""

    def job(connection: sqlite3.Connection) -> Removed:
        values = {
            "seqs": msgspec.json.encode(seqs).decode(),
            "now": wall_now_ms(),
            "note": note,
        }
        rows = connection.execute(RESEND_OWNERS, values).fetchall()
        connection.execute(RESEND_READY, values)
        connection.execute(FORGET_SENT, values)
        by_owner: dict[str, int] = {}
        for _, owner in rows:
            by_owner[owner] = by_owner.get(owner, 0) + 1
        return Removed([event_id for event_id, _ in rows], by_owner)

    return job
