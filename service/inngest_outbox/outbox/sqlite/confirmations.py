"""The Confirmations of an SQLite outbox: rows that Inngest has answered.

The invariant: a row leaves outbox_sent for outbox_done or outbox_ready in one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from inngest_outbox.outbox.clock import Clock, wall_now_ms
from inngest_outbox.outbox.event import decode_meta
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.model import SentEntry
from inngest_outbox.outbox.sqlite.file.connection import SQL, SqliteReader
from inngest_outbox.outbox.sqlite.state import CachedState, StoredCounts
from inngest_outbox.outbox.sqlite.writer import SqliteWriter


class SqliteConfirmations:
    """Reads through `reader`, changes through `writer`."""

    def __init__(
        self,
        reader: SqliteReader,
        writer: SqliteWriter,
        counts: StoredCounts,
        clock: Clock,
        state: CachedState,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._counts = counts
        self._clock = clock
        self._state = state

    @property
    def inngest_ids(self) -> InngestIds:
        """Derives the ULIDs of this outbox's rows."""
        return self._state.known_ids()

    async def sent(self, limit: int, after_seq: int = 0) -> Sequence[SentEntry]:
        """At most `limit` sent rows with a higher `seq`, in its order."""
        values = {"now": self._clock.now_ms(), "after": after_seq, "limit": limit}
        return await self._reader.run(_sent, values)

    async def count_sent(self) -> int:
        """The number of sent rows."""
        return await self._reader.run(_count)

    async def may_ask(self) -> bool:
        """True: one process has the file."""
        return True

    async def stop_asking(self) -> None:
        """No other process could ask."""

    async def confirm(self, seqs: Sequence[int]) -> int:
        """Sent rows become delivered, atomically; returns how many were still sent."""

        def run(connection: sqlite3.Connection) -> int:
            values = {"seqs": _json(seqs), "now": wall_now_ms()}
            connection.execute(SQL["CONFIRM"], {**values, "ran_ms": self._state.ran_ms()})
            return connection.execute(SQL["SENT_END"], values).rowcount

        return await self._writer.run(run)

    async def resend(self, seqs: Sequence[int], note: str) -> int:
        """Sent rows become pending, due now, with `note`; returns how many were still sent."""
        values = {"seqs": _json(seqs), "now": wall_now_ms(), "note": note}

        def run(connection: sqlite3.Connection) -> dict[str, int]:
            owners: dict[str, int] = dict(connection.execute(SQL["RESEND_OWNERS"], values))
            connection.execute(SQL["RESEND"], values)
            connection.execute(SQL["SENT_END"], values)
            return owners

        return sum((await self._writer.run(run, self._counts.returned)).values())


def _json(seqs: Sequence[int]) -> str:
    return msgspec.json.encode(list(seqs)).decode()


def _sent(connection: sqlite3.Connection, values: dict[str, int]) -> list[SentEntry]:
    found = connection.execute(SQL["SENT"], values).fetchall()
    return [SentEntry(*[*row[:-1], decode_meta(row[-1])]) for row in found]


def _count(connection: sqlite3.Connection) -> int:
    [(count,)] = connection.execute(SQL["COUNT_SENT"]).fetchall()
    return int(count)
