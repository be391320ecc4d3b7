"""Settling claims of an SQLite outbox.

The invariant: a settlement touches only rows that outbox_claims still holds under its token, and
puts each into another table in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec

from service.outbox.clock import Clock
from service.outbox.model import Settlement
from service.outbox.sqlite import statements
from service.outbox.sqlite.claims import SqliteClaims
from service.outbox.sqlite.quota import StoredCounts
from service.outbox.sqlite.row_set import OfRows, RowSet

_encode = msgspec.json.Encoder().encode
_MAX_UNSEEN = 1000


class SqliteSettlements:
    """The kind of work that settles: Settlement in, number of stale rows out (see `WorkKind`)."""

    synced: ClassVar[bool] = False

    def __init__(self, clock: Clock, counts: StoredCounts, claims: SqliteClaims) -> None:
        self._clock = clock
        self._counts = counts
        self._claims = claims
        # Settled after the submitter had given up on a disk that hung. A repeat finds the rows
        # gone, but no lease was lost.
        self._unseen: dict[str, set[int]] = {}

    def apply(self, connection: sqlite3.Connection, items: Sequence[Settlement]) -> list[int]:
        """How many rows of each were no longer under its claim."""
        now = self._clock.now_ms()
        return [self._settle(connection, item, now) for item in items]

    def committed(
        self, items: Sequence[Settlement], results: Sequence[int], still_wanted: Sequence[bool]
    ) -> None:
        """Take the settled rows out of the counts."""
        del results
        for item, is_wanted in zip(items, still_wanted, strict=True):
            self._uncount(item)
            self._claims.picker.may_have_express |= bool(item.retry)
            if is_wanted:
                self._unseen.pop(item.claim, None)
            elif len(self._unseen) < _MAX_UNSEEN:
                self._unseen.setdefault(item.claim, set()).update(_named(item))

    def failed(self, items: Sequence[Settlement]) -> None:
        """Nothing to undo."""

    def _uncount(self, item: Settlement) -> None:
        owners = self._claims.held.get(item.claim, {})
        settled = {*item.delivered, *item.sent, *(dead.seq for dead in item.dead)}
        gone = Counter(map(owners.pop, settled.intersection(owners)))
        for owner, count in gone.items():
            self._counts.left(owner, count)
        for retry in item.retry:
            owners.pop(retry.seq, None)
        if not owners:
            self._claims.held.pop(item.claim, None)

    def _settle(self, connection: sqlite3.Connection, item: Settlement, now: int) -> int:
        named = _named(item)
        if not named:
            return 0
        changed = 0
        for statement, seqs in _taken(item):
            rows = RowSet.of(seqs)
            changed += rows.execute(connection, statement, item.claim, now).rowcount
        for move, encoded in _judged(item, now):
            changed += connection.execute(move, (encoded, item.claim, now)).rowcount
        RowSet.of(named).delete(connection, statements.SETTLE_RELEASE, item.claim)
        repeated = len(self._unseen.get(item.claim, set()).intersection(named))
        return max(0, len(named) - changed - repeated)


def _named(item: Settlement) -> list[int]:
    retried = [one.seq for one in item.retry]
    return [*item.delivered, *item.sent, *retried, *(one.seq for one in item.dead)]


def _taken(item: Settlement) -> Iterable[tuple[OfRows, Sequence[int]]]:
    if item.delivered:
        yield statements.SETTLE_DELIVERED, item.delivered
    if item.sent:
        yield statements.SETTLE_SENT, item.sent


def _judged(item: Settlement, now: int) -> Iterable[tuple[str, str]]:
    """The statements that write more of a row than that it was taken, and their first parameter."""
    if item.retry:
        retries = [
            (one.seq, one.attempts, _due_at(now, one.delay_seconds), int(one.isolated), one.note)
            for one in item.retry
        ]
        yield statements.SETTLE_RETRY, _encode(retries).decode()
    if item.dead:
        deads = [(one.seq, one.attempts, one.reason, one.detail) for one in item.dead]
        yield statements.SETTLE_DEAD, _encode(deads).decode()


def _due_at(now: int, delay_seconds: float) -> int:
    return now + int(delay_seconds * 1000) if delay_seconds > 0 else 0
