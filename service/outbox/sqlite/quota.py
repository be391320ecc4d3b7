"""How many rows wait in an SQLite outbox, in all and by owner, without asking the file.

Rows that an earlier process left are counted beside the first requests, from a snapshot that is
older than any of them; so the figures are right as soon as that count is added.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from service.errors import OutboxFullError, TooManyPendingError
from service.outbox.sqlite.connection import open_reader

PENDING_BY_OWNER = """
SELECT owner, count(*) FROM outbox_ready CROSS JOIN outbox USING (seq) GROUP BY owner
"""


class PendingCounts:
    """How many rows are not settled, in all and by owner, kept in memory.

    Counts what happened since the start; `add_found` adds what was there before.
    """

    def __init__(self, max_pending: int, max_pending_per_user: int) -> None:
        self._max_pending = max_pending
        self._max_per_user = max_pending_per_user
        self._by_owner: Counter[str] = Counter()
        self.total = 0

    def add_found(self, found: dict[str, int]) -> None:
        """Add the rows that an earlier process left."""
        self._by_owner.update(found)
        self.total += sum(found.values())

    def entered(self, owner: str) -> None:
        """One more row of `owner` is pending."""
        self._by_owner[owner] += 1
        self.total += 1

    def left(self, owner: str, count: int = 1) -> None:
        """`count` rows of `owner` are settled or gone."""
        remaining = self._by_owner[owner] - count
        if remaining:
            self._by_owner[owner] = remaining
        else:
            del self._by_owner[owner]
        self.total -= count

    def refuse_if_full(self, owner: str, retry_after_seconds: int) -> None:
        """Raises TooManyPendingError or OutboxFullError when there is no room."""
        if self._by_owner.get(owner, 0) >= self._max_per_user:
            raise TooManyPendingError(retry_after_seconds=retry_after_seconds)
        if self.total >= self._max_pending:
            raise OutboxFullError(retry_after_seconds=retry_after_seconds)


@contextlib.asynccontextmanager
async def counting_earlier_rows(path: Path, counts: PendingCounts) -> AsyncIterator[None]:
    """Count what is pending at `path` now and add it to `counts`, while inside."""

    def add(counting: asyncio.Task[dict[str, int]]) -> None:
        if not counting.cancelled() and not counting.exception():
            counts.add_found(counting.result())

    async with open_reader(path) as reader:
        await reader.run(_begin_snapshot)
        counting = asyncio.create_task(reader.run(_count_pending), name="outbox-count")
        counting.add_done_callback(add)
        try:
            yield
        finally:
            reader.interrupt()
            await asyncio.wait([counting])


def _begin_snapshot(connection: sqlite3.Connection) -> None:
    """Fix what later reads of this connection see to this moment."""
    connection.execute("BEGIN")
    connection.execute("SELECT single FROM outbox_delivery").fetchall()


def _count_pending(connection: sqlite3.Connection) -> dict[str, int]:
    """Pending rows by owner, in the snapshot that was begun; ends it."""
    try:
        return dict(connection.execute(PENDING_BY_OWNER).fetchall())
    finally:
        connection.execute("ROLLBACK")
