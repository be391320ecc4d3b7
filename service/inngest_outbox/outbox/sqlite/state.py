"""The state that the writer of an SQLite outbox keeps in memory, and the usage of each owner.

Pending rows of an earlier process are counted before the first append. The bytes of earlier rows
are counted page by page while requests are served; until then they count as 0.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

import msgspec

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.limits import FairShare, Limits
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.outbox.sqlite.file.connection import SQL

_UNREAD = "The outbox has not been read yet."
_MARK_MS = 3_600_000  # the ages of rows are known to the hour


class CachedState:
    """The delivery record, how ids in Inngest are made, and for how long services have run.

    The first two are None before the file was read. `first_seq` is that of the first row which this
    process can accept. `is_on_disk` says that no row is visible which a power cut could take back.
    """

    def __init__(self) -> None:
        self.record: DeliveryRecord | None = None
        self.ids: InngestIds | None = None
        self.first_seq = 0
        self.is_on_disk = False
        self._ran_before_ms = 0
        self._ages: list[tuple[int, int]] = []
        self._began = time.monotonic()

    def known_record(self) -> DeliveryRecord:
        """The delivery record as last saved. Raises OutboxUnavailableError before it was read."""
        if self.record is None:
            raise OutboxUnavailableError(_UNREAD)
        return self.record

    def known_ids(self) -> InngestIds:
        """Derives the ids in Inngest. Raises OutboxUnavailableError before it was read."""
        if self.ids is None:
            raise OutboxUnavailableError(_UNREAD)
        return self.ids

    def ran_ms(self) -> int:
        """The time in all that services have run on this outbox."""
        return self._ran_before_ms + int((time.monotonic() - self._began) * 1000)

    def is_aged(self, seq: int, seconds: float) -> bool:
        """True if services have run for so long since the row was accepted.

        Rows that this process accepted have the age that its clock says. Known to the hour.
        """
        until = self.ran_ms() - int(seconds * 1000)
        aged = any(ran_ms <= until and seq <= upto for ran_ms, upto in self._ages)
        return seq >= self.first_seq or aged

    def read_ages(self, connection: sqlite3.Connection) -> None:
        """Begin to count from what the file says."""
        [(self._ran_before_ms,)] = connection.execute(SQL["RAN_MS"]).fetchall()
        self._began = time.monotonic()
        self._ages = connection.execute(SQL["AGES"]).fetchall()

    def keep_ages(self, connection: sqlite3.Connection, *, is_start: bool = False) -> None:
        """Write how long services have run, and each hour the highest seq of then."""
        ran_ms = self.ran_ms()
        connection.execute(SQL["KEEP_RAN"], {"ran_ms": ran_ms})
        if is_start or not self._ages or ran_ms - self._ages[-1][0] >= _MARK_MS:
            connection.execute(SQL["KEEP_AGE"], {"ran_ms": ran_ms})
            connection.execute(SQL["DROP_AGES"], {"ran_ms": ran_ms})
            self._ages = connection.execute(SQL["AGES"]).fetchall()


class Freed(msgspec.Struct, frozen=True, gc=False):
    """The usage of removed rows, by owner: pending rows, and bytes that had been counted."""

    pending: dict[str, int]
    stored_bytes: dict[str, int]


class StoredCounts:
    """The numbers of pending and delivering rows and of stored bytes, kept in memory."""

    def __init__(self, limits: Limits, fair_share: FairShare) -> None:
        self._limits = limits
        self._fair_share = fair_share
        self._noisy_rows = fair_share.noisy_rows
        self._pending: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._noisy_total = 0
        self.total = 0
        self.total_bytes = 0

    def enter(self, owner: str, rows: int, size: int) -> bool:
        """Count rows and bytes of `owner` that become pending; whether they have a fair share.

        They have when few rows of `owner` wait while noisy owners' rows fill half the queue.
        """
        before = self._pending.get(owner, 0)
        fair_share = before < self._noisy_rows and self._fair_share.is_noisy(
            self._noisy_total, self.total
        )
        self._pending[owner] = after = before + rows
        self.total += rows
        if after >= self._noisy_rows:
            self._noisy_total += after - self._noisy(before)
        self._bytes[owner] = self._bytes.get(owner, 0) + size
        self.total_bytes += size
        return fair_share

    def undo(self, owner: str, rows: int, size: int) -> None:
        """Take rows and bytes back that were not stored."""
        self._change(owner, -rows)
        self.free_bytes({owner: size})

    def returned(self, pending: Mapping[str, int]) -> None:
        """Count rows that became pending again, or that an earlier process left."""
        for owner, count in pending.items():
            self._change(owner, count)

    def left(self, owner: str, count: int = 1) -> None:
        """Count rows of `owner` that are sent, settled or removed."""
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

    def _change(self, owner: str, by: int) -> None:
        before = self._pending.get(owner, 0)
        after = before + by
        if after:
            self._pending[owner] = after
        else:
            self._pending.pop(owner, None)
        self.total += by
        self._noisy_total += self._noisy(after) - self._noisy(before)

    def _noisy(self, count: int) -> int:
        return count if count >= self._noisy_rows else 0


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
        """True if every page was counted."""
        return self.counted_to >= self.newest

    def begin(self, connection: sqlite3.Connection) -> None:
        """Note the newest row; later rows are counted when they are appended."""
        [(self.newest,)] = connection.execute(SQL["NEWEST"]).fetchall()

    def count_page(self, connection: sqlite3.Connection) -> dict[str, int]:
        """The bytes by owner in the next page; runs between the writer's transactions."""
        until = min(self.newest, self.counted_to + self._page_rows)
        found = connection.execute(
            SQL["BYTES_BY_OWNER"], {"after": self.counted_to, "upto": until}
        ).fetchall()
        self.counted_to = until
        return dict(found)
