"""How much an SQLite outbox holds, in all and by owner, kept in memory.

Pending rows of an earlier process are counted before the first append. The bytes of earlier rows
are counted page by page while requests are served; until then they count as 0.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import msgspec

from service.outbox.fair_share import FairShare
from service.outbox.limits import Limits

PENDING_BY_OWNER = """
SELECT owner, count(*) FROM outbox_ready CROSS JOIN outbox USING (seq) GROUP BY owner
"""
BYTES_BY_OWNER = """
SELECT owner, sum(length(payload)) FROM outbox WHERE seq > ?1 AND seq <= ?2 GROUP BY owner
"""
READY = "SELECT count(*) FROM outbox_ready"
NEWEST = "SELECT coalesce(max(seq), 0) FROM outbox"


class Freed(msgspec.Struct, frozen=True, gc=False):
    """What removed rows held, by owner: pending rows, and bytes that had been counted."""

    pending: dict[str, int]
    stored_bytes: dict[str, int]


class StoredCounts:
    """How many rows are not settled, and how many bytes are stored, kept in memory."""

    def __init__(self, limits: Limits, fair_share: FairShare) -> None:
        self._limits = limits
        self._fair_share = fair_share
        self._heavy_rows = fair_share.heavy_rows
        self._pending: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._heavy_total = 0
        self.total = 0
        self.total_bytes = 0

    def enter(self, owner: str, rows: int, size: int) -> bool:
        """Count rows and bytes of `owner` that become pending; whether they are express.

        They are when few rows of `owner` wait while other owners' rows fill half the queue.
        """
        before = self._pending.get(owner, 0)
        express = before < self._heavy_rows and self._is_crowded()
        self._pending[owner] = after = before + rows
        self.total += rows
        if after >= self._heavy_rows:
            self._heavy_total += after - self._heavy(before)
        self._bytes[owner] = self._bytes.get(owner, 0) + size
        self.total_bytes += size
        return express

    def undo(self, owner: str, rows: int, size: int) -> None:
        """Take rows and bytes back that were not stored."""
        self._change(owner, -rows)
        self.free_bytes({owner: size})

    def returned(self, pending: Mapping[str, int]) -> None:
        """Count rows that became pending again, or that an earlier process left."""
        for owner, count in pending.items():
            self._change(owner, count)

    def left(self, owner: str, count: int = 1) -> None:
        """Count rows of `owner` that are settled or removed."""
        self._change(owner, -count)

    def add_bytes(self, found: Mapping[str, int]) -> None:
        """Add stored bytes."""
        for owner, size in found.items():
            self._bytes[owner] = self._bytes.get(owner, 0) + size
            self.total_bytes += size

    def free_bytes(self, freed: Mapping[str, int]) -> None:
        """Subtract removed bytes."""
        for owner, size in freed.items():
            left = self._bytes.get(owner, 0) - size
            self.total_bytes -= size
            if left:
                self._bytes[owner] = left
            else:
                self._bytes.pop(owner, None)

    def free(self, freed: Freed) -> None:
        """Subtract removed rows."""
        for owner, count in freed.pending.items():
            self.left(owner, count)
        self.free_bytes(freed.stored_bytes)

    def check(self, owner: str, rows: int, size: int) -> None:
        """Raise TooManyPendingError or OutboxFullError when so many rows and bytes have no room."""
        pending, stored = self._pending.get(owner, 0), self._bytes.get(owner, 0)
        self._limits.check((pending, stored), (self.total, self.total_bytes), rows, size)

    def _is_crowded(self) -> bool:
        return self._fair_share.is_crowded(self._heavy_total, self.total)

    def _change(self, owner: str, by: int) -> None:
        before = self._pending.get(owner, 0)
        after = before + by
        if after:
            self._pending[owner] = after
        else:
            self._pending.pop(owner, None)
        self.total += by
        self._heavy_total += self._heavy(after) - self._heavy(before)

    def _heavy(self, count: int) -> int:
        return count if count >= self._heavy_rows else 0


class BytesCount:
    """Counts the bytes of rows that were there at the start, a page at a time.

    Rows that were not counted yet are not subtracted when they are removed.
    """

    def __init__(self, page_rows: int = 2000) -> None:
        self._page_rows = page_rows
        self.counted_to = 0
        self.newest = 0

    @property
    def is_done(self) -> bool:
        """Whether every page was counted."""
        return self.counted_to >= self.newest

    def begin(self, connection: sqlite3.Connection) -> None:
        """Note the newest row; later rows are counted when they are appended."""
        [(self.newest,)] = connection.execute(NEWEST).fetchall()

    def count_page(self, connection: sqlite3.Connection) -> dict[str, int]:
        """The bytes by owner in the next page; runs between the writer's transactions."""
        until = min(self.newest, self.counted_to + self._page_rows)
        found = connection.execute(BYTES_BY_OWNER, (self.counted_to, until)).fetchall()
        self.counted_to = until
        return dict(found)


def count_pending(connection: sqlite3.Connection) -> dict[str, int]:
    """Pending rows by owner."""
    return dict(connection.execute(PENDING_BY_OWNER).fetchall())


def count_ready(connection: sqlite3.Connection) -> int:
    """How many rows are pending; reads none of them."""
    [(count,)] = connection.execute(READY).fetchall()
    return int(count)
