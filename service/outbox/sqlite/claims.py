"""Claiming from an SQLite outbox, and settling.

Two kinds of work for the writer: `SqliteClaims` (standing: it waits in the writer until rows are
due) and `SqliteSettlements`. The invariant: whatever is taken from one of `ready`, `claims` and
`done` is put into another in the same transaction, and a settlement touches only rows that `claims`
still holds under its token.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec
import uuid_utils

from service.outbox.clock import Clock
from service.outbox.model import Batch, ClaimRequest, Entry, Isolated, Settlement
from service.outbox.sqlite import statements
from service.outbox.sqlite.fresh import FreshRows
from service.outbox.sqlite.quota import PendingCounts

_encode = msgspec.json.Encoder().encode
_END_OF_TIME_MS = 1 << 62


_decode_numbers = msgspec.json.Decoder(list[int]).decode
_decode_entries = msgspec.json.Decoder(tuple[Entry, ...]).decode


def release(connection: sqlite3.Connection, claim: str) -> bool:
    """Free the rows of a claim that nobody took; they count as not sent."""
    connection.execute(statements.RELEASE_READY, (claim,))
    connection.execute(statements.RELEASE_CLAIM, (claim,))
    return True


def give_back(connection: sqlite3.Connection, until_ms: int = _END_OF_TIME_MS) -> list[str]:
    """Free the rows whose lease ended by `until_ms` (default: all); a claim for each row."""
    connection.execute(statements.EXPIRE_READY, (until_ms,))
    expired = connection.execute(statements.EXPIRE_CLAIMS, (until_ms,)).fetchall()
    return [claim for (claim,) in expired]


class SqliteClaims:
    """The standing kind of work that claims: Ask in, Batch out (see `Kind`).

    `poke` tries standing work again, `release` frees the rows of a claim that nobody took.
    """

    synced: ClassVar[bool] = False

    def __init__(
        self, clock: Clock, *, poke: Callable[[], None], release: Callable[[str], None]
    ) -> None:
        self._clock = clock
        self._poke = poke
        self._release = release
        self._fresh = FreshRows()
        self._give_back_at_ms = 0
        self._next_due_ms: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._made: dict[str, dict[int, str]] = {}
        self._expired: list[str] = []
        self.held: dict[str, dict[int, str]] = {}

    def recover(self, connection: sqlite3.Connection) -> int:
        """Free what an earlier process claimed or delayed; how many rows were under a claim."""
        connection.execute(statements.RECOVER_DUE)
        self._fresh.after(connection, self._clock.now_ms())
        return len(give_back(connection))

    def apply(
        self, connection: sqlite3.Connection, works: Sequence[ClaimRequest]
    ) -> list[Batch | None]:
        """A Batch for each that finds rows, None for the others."""
        now = self._clock.now_ms()
        self._made, self._expired = {}, []
        if now >= self._give_back_at_ms:
            self._give_back_at_ms = now + 1000
            self._expired = give_back(connection, now)
        batches = [self._claim(connection, ask, now) for ask in works]
        self._next_due_ms = None
        if None in batches:
            [(self._next_due_ms,)] = connection.execute(statements.NEXT_DUE, (now,)).fetchall()
            self._give_back_at_ms = min(self._give_back_at_ms, self._next_due_ms or now + 1000)
        return batches

    def committed(
        self, works: Sequence[ClaimRequest], results: Sequence[Batch | None], taken: Sequence[bool]
    ) -> None:
        """Release what nobody took; wake again when a delayed row becomes due."""
        del works
        self.held |= self._made
        for claim in set(self._expired):
            self.held.pop(claim, None)
        for batch, waits in zip(results, taken, strict=True):
            if batch and not waits:
                self.untaken(batch)
        if self._timer:
            self._timer.cancel()
        if self._next_due_ms is not None:
            delay = max(0, self._next_due_ms - self._clock.now_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay, self._poke)

    def failed(self, works: Sequence[ClaimRequest]) -> None:
        """Leases that ended are looked for again."""
        del works
        self._give_back_at_ms = 0

    def untaken(self, batch: Batch) -> None:
        """Nobody took this batch: its bytes never left."""
        self.held.pop(batch.claim, None)
        self._release(batch.claim)

    def _claim(self, connection: sqlite3.Connection, ask: ClaimRequest, now: int) -> Batch | None:
        picked = _pick(connection, ask, now, self._fresh.after(connection, now))
        if not picked:
            return None
        claim = str(uuid_utils.uuid7())
        seqs = _encode(picked).decode()
        lease_until = now + int(ask.lease_seconds * 1000)
        connection.execute(statements.CLAIM_HOLD, (seqs, claim, now, lease_until))
        connection.execute(statements.CLAIM_TAKE, (seqs,))
        [(rows, payloads)] = connection.execute(statements.CLAIM_READ, (seqs,)).fetchall()
        entries = _decode_entries(rows)
        self._made[claim] = {entry.seq: entry.user_id for entry in entries}
        return Batch(claim, entries, payloads)


class SqliteSettlements:
    """The kind of work that settles: Settlement in, number of stale rows out (see `Kind`)."""

    synced: ClassVar[bool] = False

    def __init__(self, clock: Clock, counts: PendingCounts, claims: SqliteClaims) -> None:
        self._clock = clock
        self._counts = counts
        self._claims = claims

    def apply(self, connection: sqlite3.Connection, works: Sequence[Settlement]) -> list[int]:
        """How many rows of each were no longer under its claim."""
        now = self._clock.now_ms()
        return [_settle(connection, work, now) for work in works]

    def committed(
        self, works: Sequence[Settlement], results: Sequence[int], taken: Sequence[bool]
    ) -> None:
        """Take the settled rows out of the counts."""
        del results, taken
        for work in works:
            users = self._claims.held.get(work.claim, {})
            settled = [*work.delivered, *work.sent, *(dead.seq for dead in work.dead)]
            gone = Counter(users.pop(seq) for seq in settled if seq in users)
            for user_id, count in gone.items():
                self._counts.left(user_id, count)
            for retry in work.retry:
                users.pop(retry.seq, None)
            if not users:
                self._claims.held.pop(work.claim, None)

    def failed(self, works: Sequence[Settlement]) -> None:
        """Nothing to undo."""


def _pick(
    connection: sqlite3.Connection, ask: ClaimRequest, now: int, fresh_after: int
) -> list[int]:
    """The rows to claim, in the order of their acceptance."""
    if ask.isolated is Isolated.FIRST:
        suspect, _ = _due(connection, statements.PICK_ISOLATED, now, 1)
        if suspect:
            return suspect
    due, size = _due(connection, statements.PICK_OLDEST, now, ask.max_events)
    if not due and ask.isolated is Isolated.LAST:
        return _due(connection, statements.PICK_ISOLATED, now, 1)[0]
    if len(due) < ask.max_events and size <= ask.max_bytes:
        return sorted(due)
    room = ask.max_bytes
    newest = _newest(connection, ask, fresh_after)
    if newest:
        room -= int(ask.max_bytes * ask.fresh_share)
        known = set(newest)
        due = [seq for seq in due if seq not in known][: ask.max_events - len(newest)]
    return sorted([*(_fitting(connection, due, size, room) or due[:1]), *newest])


def _newest(connection: sqlite3.Connection, ask: ClaimRequest, fresh_after: int) -> list[int]:
    """The newest rows' share: of what is fresh, but the whole of it of any."""
    whole = ask.fresh_share >= 1
    count, size = int(ask.max_events * ask.fresh_share), int(ask.max_bytes * ask.fresh_share)
    after = 0 if whole else fresh_after
    due, due_size = _due(connection, statements.PICK_NEWEST, after, count)
    return _fitting(connection, due, due_size, size) or (due[:1] if whole else [])


def _due(
    connection: sqlite3.Connection, statement: str, at: int, limit: int
) -> tuple[list[int], float]:
    """The rows that a PICK finds, and the size of their payloads in all."""
    [(seqs, size)] = connection.execute(statement, (at, limit)).fetchall()
    return _decode_numbers(seqs), size


def _fitting(
    connection: sqlite3.Connection, seqs: list[int], size: float, max_bytes: int
) -> list[int]:
    """As many of the first rows as the bytes allow; `size` is of all of them, or more."""
    if size <= max_bytes:
        return seqs
    [(sizes,)] = connection.execute(statements.SIZES, (_encode(seqs).decode(),)).fetchall()
    totals = itertools.accumulate(_decode_numbers(sizes))
    return seqs[: sum(1 for _ in itertools.takewhile(lambda total: total <= max_bytes, totals))]


def _settle(connection: sqlite3.Connection, work: Settlement, now: int) -> int:
    named = [
        *work.delivered,
        *work.sent,
        *(a.seq for a in work.retry),
        *(d.seq for d in work.dead),
    ]
    changed = 0
    if work.delivered:
        rows = _encode(work.delivered).decode()
        changed += connection.execute(statements.SETTLE_DELIVERED, (rows, work.claim, now)).rowcount
    if work.sent:
        rows = _encode(work.sent).decode()
        changed += connection.execute(statements.SETTLE_SENT, (rows, work.claim, now)).rowcount
    if work.retry:
        agains = [
            (a.seq, a.attempts, _due_at(now, a.delay_seconds), int(a.isolated), a.note)
            for a in work.retry
        ]
        rows = _encode(agains).decode()
        changed += connection.execute(statements.SETTLE_RETRY, (rows, work.claim, now)).rowcount
    if work.dead:
        deads = [(d.seq, d.attempts, d.reason, d.detail) for d in work.dead]
        rows = _encode(deads).decode()
        changed += connection.execute(statements.SETTLE_DEAD, (rows, work.claim, now)).rowcount
    connection.execute(statements.SETTLE_RELEASE, (_encode(named).decode(), work.claim))
    return len(named) - changed


def _due_at(now: int, delay_seconds: float) -> int:
    return now + int(delay_seconds * 1000) if delay_seconds > 0 else 0
