"""The Confirmations of an SQLite outbox: rows that Inngest has answered.

The invariant: a row leaves outbox_sent for outbox_done or outbox_ready in one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from service.outbox.clock import Clock
from service.outbox.event import decode_meta
from service.outbox.inngest_id import InngestIds
from service.outbox.sent_entry import SentEntry
from service.outbox.sqlite.jobs import JobRunner
from service.outbox.sqlite.memory import Memory
from service.outbox.sqlite.notes import noted
from service.outbox.sqlite.quota import StoredCounts
from service.outbox.sqlite.reader import SqliteReader

COUNT_SENT = "SELECT count(*) FROM outbox_sent"
SENT = """
SELECT seq, event_id, accepted_at_ms, max(0, :now - sent_at_ms) / 1000.0, sends, meta
FROM (SELECT seq, sent_at_ms, sends FROM outbox_sent WHERE seq > :after ORDER BY seq LIMIT :limit)
CROSS JOIN outbox USING (seq)
"""
DELIVERED = """
SELECT seq, event_id, accepted_at_ms, max(0, :now - settled_at_ms) / 1000.0, sends, meta
FROM (SELECT seq, settled_at_ms, sends FROM outbox_done
      WHERE seq > :after AND dead = 0 AND settled_at_ms > :since ORDER BY seq LIMIT :limit)
CROSS JOIN outbox USING (seq)
"""
PREFIX = "SELECT inngest_id_prefix FROM outbox_meta"

_BY_SEQS = "FROM json_each(:seqs) CROSS JOIN outbox_sent ON seq = value"
CONFIRM = f"""
INSERT INTO outbox_done (seq, dead, settled_at_ms, isolated, attempts, sends, first_sent_at_ms,
                         history)
SELECT seq, 0, :now, isolated, attempts, sends, first_sent_at_ms, history {_BY_SEQS}
"""
RESEND_OWNERS = f"""
SELECT owner, count(*) {_BY_SEQS} CROSS JOIN outbox USING (seq) GROUP BY owner
"""
# An answer whose event was lost is no attempt.
RESEND = f"""
INSERT INTO outbox_ready (seq, payload_bytes, isolated, attempts, sends, first_sent_at_ms, history)
SELECT seq, length(payload), isolated, attempts - 1, sends, first_sent_at_ms,
       {noted(":now", ":note")}
{_BY_SEQS} CROSS JOIN outbox USING (seq)
"""
SENT_REMOVE = "DELETE FROM outbox_sent WHERE seq IN (SELECT value FROM json_each(:seqs))"


class SqliteConfirmations:
    """Reads through `reader`, changes through `jobs`."""

    def __init__(
        self,
        reader: SqliteReader,
        jobs: JobRunner,
        counts: StoredCounts,
        clock: Clock,
        memory: Memory,
    ) -> None:
        self._reader = reader
        self._jobs = jobs
        self._counts = counts
        self._clock = clock
        self._memory = memory

    @property
    def inngest_ids(self) -> InngestIds:
        """How the ULIDs of this outbox's rows follow from them."""
        return self._memory.known_ids()

    async def sent(self, limit: int, after_seq: int = 0) -> Sequence[SentEntry]:
        """At most `limit` sent rows with a higher `seq`, in its order."""
        values = {"now": self._clock.now_ms(), "after": after_seq, "limit": limit}
        return await self._reader.run(_entries, SENT, values)

    async def count_sent(self) -> int:
        """How many rows are sent."""
        return await self._reader.run(_count)

    async def delivered(
        self, limit: int, after_seq: int = 0, *, within_seconds: float | None = None
    ) -> Sequence[SentEntry]:
        """At most `limit` delivered rows with a higher `seq`, in its order."""
        now = self._clock.now_ms()
        since = -1 if within_seconds is None else now - int(within_seconds * 1000)
        values = {"now": now, "after": after_seq, "limit": limit, "since": since}
        return await self._reader.run(_entries, DELIVERED, values)

    async def may_ask(self) -> bool:
        """True: one process has the file."""
        return True

    async def stop_asking(self) -> None:
        """No other process could ask."""

    async def confirm(self, seqs: Sequence[int]) -> int:
        """Sent rows become delivered, atomically; returns how many were still sent."""
        values = {"seqs": msgspec.json.encode(list(seqs)).decode(), "now": self._clock.now_ms()}

        def run(connection: sqlite3.Connection) -> int:
            connection.execute(CONFIRM, values)
            return connection.execute(SENT_REMOVE, values).rowcount

        return await self._jobs.run(run)

    async def resend(self, seqs: Sequence[int], note: str) -> int:
        """Sent rows become pending, due now, with `note`; returns how many were still sent."""
        rows = msgspec.json.encode(list(seqs)).decode()
        values = {"seqs": rows, "now": self._clock.now_ms(), "note": note}

        def run(connection: sqlite3.Connection) -> dict[str, int]:
            owners: dict[str, int] = dict(connection.execute(RESEND_OWNERS, values).fetchall())
            connection.execute(RESEND, values)
            connection.execute(SENT_REMOVE, values)
            return owners

        return sum((await self._jobs.run(run, self._counts.returned)).values())


def read_ids(connection: sqlite3.Connection) -> InngestIds:
    """How the ULIDs of this outbox's rows are made."""
    [(prefix,)] = connection.execute(PREFIX).fetchall()
    return InngestIds(bytes(prefix))


def _entries(
    connection: sqlite3.Connection, statement: str, values: Mapping[str, Any]
) -> list[SentEntry]:
    found = connection.execute(statement, values)
    return [SentEntry(*[*row[:-1], decode_meta(row[-1])]) for row in found]


def _count(connection: sqlite3.Connection) -> int:
    [(count,)] = connection.execute(COUNT_SENT).fetchall()
    return int(count)
