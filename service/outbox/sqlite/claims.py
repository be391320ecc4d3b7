"""Claiming from an SQLite outbox.

`SqliteClaims` is the blocking kind of work: its items wait in the writer until rows are due. The
invariant: what a claim takes from outbox_ready is in outbox_claims or, unreadable, in outbox_done
in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import ClassVar

import msgspec
import structlog
import uuid_utils

from service.observe.recorder import Recorder
from service.outbox.clock import Clock
from service.outbox.model import Batch, ClaimRequest, Entry
from service.outbox.sqlite import statements
from service.outbox.sqlite.fresh import FreshRows
from service.outbox.sqlite.missing import missing_events
from service.outbox.sqlite.picking import Picker
from service.outbox.sqlite.quota import StoredCounts
from service.outbox.sqlite.row_set import RowSet
from service.outbox.sqlite.salvage import UNREADABLE, Salvage, set_aside

_END_OF_TIME_MS = 1 << 62
_EXPIRY_MS = 1000

_decode_owners = msgspec.json.Decoder(list[str]).decode
_decode_entries = msgspec.json.Decoder(tuple[Entry, ...]).decode

log = structlog.get_logger(__name__)


class SqliteClaims:
    """The kind of work that claims: ClaimRequest in, Batch out (see `BlockingKind`)."""

    synced: ClassVar[bool] = False

    def __init__(
        self,
        clock: Clock,
        counts: StoredCounts,
        recorder: Recorder,
        salvage: Salvage,
    ) -> None:
        self._clock = clock
        self._counts = counts
        self._recorder = recorder
        self._salvage = salvage
        self._fresh = FreshRows()
        self._expire_at_ms = 0
        self._next_due_ms: int | None = None
        self._abandoned: set[str] = set()
        self._released: set[str] = set()
        self._made: dict[str, dict[int, str]] = {}
        self._expired: list[str] = []
        self._set_aside: dict[int, str | None] = {}
        self.picker = Picker()
        # The rows under a claim of this process, and their owners.
        self.held: dict[str, dict[int, str]] = {}

    def recover(self, connection: sqlite3.Connection) -> int:
        """Free the rows that an earlier process claimed or delayed.

        Returns how many were claimed.
        """
        connection.execute(statements.RECOVER_DUE)
        claimed = len(_expire(connection, _END_OF_TIME_MS))
        [(express,)] = connection.execute(statements.EXPRESS_WAITS).fetchall()
        self.picker.may_have_express = bool(express)
        self._fresh.after(connection, self._clock.now_ms())
        return claimed

    def due_in_seconds(self, *, waiting: bool) -> float | None:
        """0 for abandoned claims; for waiting items, until a row is due or a lease ends."""
        if self._abandoned:
            return 0.0
        if not waiting or self._next_due_ms is None:
            return None
        return max(0, self._next_due_ms - self._clock.now_ms()) / 1000

    def abandon(self, batch: Batch) -> None:
        """Free the rows of a batch that no caller received."""
        self.held.pop(batch.claim, None)
        self._abandoned.add(batch.claim)

    def apply(
        self, connection: sqlite3.Connection, items: Sequence[ClaimRequest]
    ) -> list[Batch | None]:
        """A Batch for each request that finds rows, None for the others."""
        now = self._clock.now_ms()
        self._made, self._expired, self._set_aside = {}, [], {}
        self._released = set(self._abandoned)
        for claim in self._released:
            connection.execute(statements.RELEASE_READY, (claim,))
            connection.execute(statements.RELEASE_CLAIM, (claim,))
        if now >= self._expire_at_ms:
            self._expire_at_ms = now + _EXPIRY_MS
            self._expired = _expire(connection, now)
        batches = [self._claim(connection, request, now) for request in items]
        self._next_due_ms = None
        if None in batches:
            [(self._next_due_ms,)] = connection.execute(statements.NEXT_DUE, (now,)).fetchall()
            if self._next_due_ms is not None:
                self._expire_at_ms = min(self._expire_at_ms, self._next_due_ms)
        return batches

    def committed(
        self,
        items: Sequence[ClaimRequest],
        results: Sequence[Batch | None],
        still_wanted: Sequence[bool],
    ) -> None:
        """Remember the claimed rows; abandon the batches that nobody waits for."""
        del items
        self._abandoned -= self._released
        self.picker.may_have_express |= bool(self._released or self._expired)
        self.held |= self._made
        for claim in set(self._expired):
            self.held.pop(claim, None)
        for batch, is_wanted in zip(results, still_wanted, strict=True):
            if batch and not is_wanted:
                self.abandon(batch)
        if self._set_aside:
            self._recorder.count("dead", len(self._set_aside), reason=UNREADABLE)
            log.error("rows_unreadable", rows=list(self._set_aside))
        for owner in self._set_aside.values():
            if owner is not None:
                self._counts.left(owner)

    def failed(self, items: Sequence[ClaimRequest]) -> None:
        """Look for ended leases again."""
        del items
        self._expire_at_ms = 0

    def _claim(
        self, connection: sqlite3.Connection, request: ClaimRequest, now: int
    ) -> Batch | None:
        fresh_after = self._fresh.after(connection, now)
        while seqs := self.picker.pick(connection, request, now, fresh_after):
            if bad := self._salvage.unreadable(seqs):
                self._set_aside |= set_aside(connection, bad, now)
                continue
            claim = str(uuid_utils.uuid7())
            lease_until = now + int(request.lease_seconds * 1000)
            picked = RowSet.of(seqs)
            picked.execute(connection, statements.CLAIM_HOLD, claim, now, lease_until)
            picked.delete(connection, statements.CLAIM_TAKE)
            return self._read(connection, seqs, picked, claim)
        return None

    def _read(
        self, connection: sqlite3.Connection, seqs: list[int], picked: RowSet, claim: str
    ) -> Batch:
        try:
            read = picked.execute(connection, statements.CLAIM_READ)
            [(rows, owners, payloads)] = read.fetchall()
            entries = _decode_entries(rows)
            if len(entries) < len(seqs):
                raise missing_events(len(seqs) - len(entries))
        except (sqlite3.Error, ValueError) as error:
            self._salvage.doubt(seqs, error)
            raise
        self._made[claim] = dict(zip(seqs, _decode_owners(owners), strict=True))
        return Batch(claim, entries, payloads)


def _expire(connection: sqlite3.Connection, until_ms: int) -> list[str]:
    """Free the rows whose lease ended by then; a claim for each row."""
    connection.execute(statements.EXPIRE_READY, (until_ms,))
    expired = connection.execute(statements.EXPIRE_CLAIMS, (until_ms,)).fetchall()
    return [claim for (claim,) in expired]
