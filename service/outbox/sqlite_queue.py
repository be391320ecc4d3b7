"""Claiming from an SQLite outbox, and settling.

Two kinds of work for the writer: `SqliteClaims` (standing: it waits in the writer until rows are
due) and `SqliteSettlements`. The invariant: a row that `claims` names is given to nobody else, and
a settlement touches only rows that `claims` still holds under its token.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec
import uuid_utils

from service.outbox.clock import Clock
from service.outbox.outbox import Ask, Batch, Entry, Settlement, Suspects
from service.outbox.sqlite_counts import PendingCounts

# The oldest due rows that nobody holds, with their sizes, in one step: a JSON array.
_PICK = """
SELECT json_group_array(json_array(seq, bytes)) FROM (
    SELECT seq, length(payload) AS bytes FROM outbox
    WHERE state = 0 AND alone = {alone} AND due_at <= ?1
      AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.seq = outbox.seq)
    ORDER BY due_at {order}, seq {order} LIMIT ?2)
"""
PICK_OLDEST = _PICK.format(alone=0, order="ASC")
PICK_NEWEST = _PICK.format(alone=0, order="DESC")
PICK_SUSPECT = _PICK.format(alone=1, order="ASC")

HOLD = """
INSERT INTO claims (seq, claim, claimed_at, lease_until)
SELECT value, ?2, ?3, ?4 FROM json_each(?1)
"""

# The rows under a claim in one step: a JSON array of metadata, and all payloads joined.
READ = """
SELECT json_group_array(json_array(seq, id, accepted_at, attempts, alone, first_sent_at, sends,
                                   trace, user_id, length(payload))),
       CAST(group_concat(payload, '') AS BLOB)
FROM (SELECT outbox.* FROM json_each(?1) JOIN outbox ON outbox.seq = value ORDER BY value)
"""

# When the next delayed row is due or the next lease ends.
NEXT_DUE = """
SELECT min(due_at) FROM (
    SELECT * FROM (SELECT due_at FROM outbox WHERE state = 0 AND alone = 0 AND due_at > ?1
                   ORDER BY due_at LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT due_at FROM outbox WHERE state = 0 AND alone = 1 AND due_at > ?1
                   ORDER BY due_at LIMIT 1)
    UNION ALL
    SELECT min(lease_until) FROM claims)
"""

# ?1 is a JSON array of seqs, ?2 the claim, ?3 now.
SETTLE_DELIVERED = """
UPDATE outbox SET state = 1, settled_at = ?3, attempts = attempts + 1, sends = sends + 1,
       first_sent_at = coalesce(first_sent_at, claims.claimed_at)
FROM json_each(?1) JOIN claims ON claims.seq = value
WHERE outbox.seq = value AND claims.claim = ?2
"""

# ?1 is a JSON array of [seq, attempts, due_at, alone, note].
SETTLE_AGAIN = """
UPDATE outbox SET attempts = value ->> 1, due_at = value ->> 2, alone = value ->> 3,
       sends = sends + 1, first_sent_at = coalesce(first_sent_at, claims.claimed_at),
       history = CASE WHEN value ->> 4 IS NULL THEN history ELSE json_insert(
           CASE WHEN json_array_length(history) < 20 THEN history
                ELSE json_remove(history, '$[0]') END,
           '$[#]', json_object('at', ?3, 'note', value ->> 4)) END
FROM json_each(?1) JOIN claims ON claims.seq = value ->> 0
WHERE outbox.seq = value ->> 0 AND claims.claim = ?2
"""

# ?1 is a JSON array of [seq, attempts, reason, detail].
SETTLE_DEAD = """
UPDATE outbox SET state = 2, settled_at = ?3, attempts = value ->> 1, reason = value ->> 2,
       detail = value ->> 3, sends = sends + 1,
       first_sent_at = coalesce(first_sent_at, claims.claimed_at)
FROM json_each(?1) JOIN claims ON claims.seq = value ->> 0
WHERE outbox.seq = value ->> 0 AND claims.claim = ?2
"""

LET_GO = "DELETE FROM claims WHERE claim = ?2 AND seq IN (SELECT value FROM json_each(?1))"

# A claim that nobody took: its bytes never left.
RELEASE = "DELETE FROM claims WHERE claim = ?1"

# Claims of a process or a sender that is gone: the rows are due again, and may have been sent.
_GIVE_BACK_ROWS = """
UPDATE outbox SET sends = sends + 1, first_sent_at = coalesce(first_sent_at, claims.claimed_at)
FROM claims WHERE claims.seq = outbox.seq AND claims.lease_until <= ?1
"""
_GIVE_BACK_CLAIMS = "DELETE FROM claims WHERE lease_until <= ?1 RETURNING claim"

# After a start by another clock a delay may lie anywhere: no delay outlives the process.
FORGET_DELAYS = "UPDATE outbox SET due_at = 0 WHERE state = 0 AND alone IN (0, 1) AND due_at > 0"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_END_OF_TIME_MS = 1 << 62


def release(connection: sqlite3.Connection, claim: str) -> bool:
    """Free the rows of a claim that nobody took; they count as not sent."""
    connection.execute(RELEASE, (claim,))
    return True


def give_back(connection: sqlite3.Connection, until_ms: int = _END_OF_TIME_MS) -> list[str]:
    """Free the rows whose lease ended by `until_ms` (default: all); a claim for each row."""
    connection.execute(_GIVE_BACK_ROWS, (until_ms,))
    return [claim for (claim,) in connection.execute(_GIVE_BACK_CLAIMS, (until_ms,)).fetchall()]


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
        self._give_back_at_ms = 0
        self._next_due_ms: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._made: dict[str, dict[int, str]] = {}
        self._expired: list[str] = []
        self.held: dict[str, dict[int, str]] = {}

    def apply(self, connection: sqlite3.Connection, works: Sequence[Ask]) -> list[Batch | None]:
        """A Batch for each that finds rows, None for the others."""
        now = self._clock.now_ms()
        self._made, self._expired = {}, []
        if now >= self._give_back_at_ms:
            self._give_back_at_ms = now + 1000
            self._expired = give_back(connection, now)
        batches = [self._claim(connection, ask, now) for ask in works]
        self._next_due_ms = None
        if None in batches:
            [(self._next_due_ms,)] = connection.execute(NEXT_DUE, (now,)).fetchall()
            self._give_back_at_ms = min(self._give_back_at_ms, self._next_due_ms or now + 1000)
        return batches

    def committed(
        self, works: Sequence[Ask], results: Sequence[Batch | None], taken: Sequence[bool]
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

    def failed(self, works: Sequence[Ask]) -> None:
        """Leases that ended are looked for again."""
        del works
        self._give_back_at_ms = 0

    def untaken(self, batch: Batch) -> None:
        """Nobody took this batch: its bytes never left."""
        self.held.pop(batch.claim, None)
        self._release(batch.claim)

    def _claim(self, connection: sqlite3.Connection, ask: Ask, now: int) -> Batch | None:
        seqs = _pick(connection, ask, now)
        if not seqs:
            return None
        claim = str(uuid_utils.uuid7())
        wanted = _encode(seqs).decode()
        connection.execute(HOLD, (wanted, claim, now, now + int(ask.lease_seconds * 1000)))
        [(meta, payloads)] = connection.execute(READ, (wanted,)).fetchall()
        entries, users = _entries(_decode(meta), payloads)
        self._made[claim] = users
        return Batch(claim, entries)


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
            settled = [*work.delivered, *(dead.seq for dead in work.dead)]
            gone = Counter(users.pop(seq) for seq in settled if seq in users)
            for user_id, count in gone.items():
                self._counts.left(user_id, count)
            for again in work.again:
                users.pop(again.seq, None)
            if not users:
                self._claims.held.pop(work.claim, None)

    def failed(self, works: Sequence[Settlement]) -> None:
        """Nothing to undo."""


def _pick(connection: sqlite3.Connection, ask: Ask, now: int) -> list[int]:
    if ask.suspects is Suspects.FIRST:
        suspect = _rows(connection, PICK_SUSPECT, now, 1)
        if suspect:
            return [suspect[0][0]]
    fresh = int(ask.max_events * ask.fresh_share)
    picked = _rows(connection, PICK_OLDEST, now, ask.max_events - fresh)
    if fresh and len(picked) == ask.max_events - fresh:
        known = {seq for seq, _ in picked}
        newest = _rows(connection, PICK_NEWEST, now, fresh)
        picked += [row for row in newest if row[0] not in known]
    if not picked and ask.suspects is Suspects.LAST:
        picked = _rows(connection, PICK_SUSPECT, now, 1)
    totals = itertools.accumulate(size for _, size in picked)
    kept = [
        seq
        for index, ((seq, _), total) in enumerate(zip(picked, totals, strict=True))
        if index == 0 or total <= ask.max_bytes
    ]
    return sorted(kept)


def _rows(connection: sqlite3.Connection, statement: str, now: int, limit: int) -> list[list[int]]:
    [(found,)] = connection.execute(statement, (now, limit)).fetchall()
    rows: list[list[int]] = _decode(found)
    return rows


def _entries(meta: list[list[Any]], payloads: bytes) -> tuple[tuple[Entry, ...], dict[int, str]]:
    entries: list[Entry] = []
    users: dict[int, str] = {}
    start = 0
    for seq, event_id, accepted_at, attempts, alone, first_sent, sends, trace, user, size in meta:
        payload = payloads[start : start + size]
        start += size
        users[seq] = user
        entries.append(
            Entry(
                seq, event_id, accepted_at, attempts, bool(alone), first_sent, sends, trace, payload
            )
        )
    return tuple(entries), users


def _settle(connection: sqlite3.Connection, work: Settlement, now: int) -> int:
    named = [*work.delivered, *(a.seq for a in work.again), *(d.seq for d in work.dead)]
    changed = 0
    if work.delivered:
        rows = _encode(work.delivered).decode()
        changed += connection.execute(SETTLE_DELIVERED, (rows, work.claim, now)).rowcount
    if work.again:
        agains = [
            (a.seq, a.attempts, _due_at(now, a.delay_seconds), int(a.alone), a.note)
            for a in work.again
        ]
        rows = _encode(agains).decode()
        changed += connection.execute(SETTLE_AGAIN, (rows, work.claim, now)).rowcount
    if work.dead:
        deads = [(d.seq, d.attempts, d.reason, d.detail) for d in work.dead]
        rows = _encode(deads).decode()
        changed += connection.execute(SETTLE_DEAD, (rows, work.claim, now)).rowcount
    connection.execute(LET_GO, (_encode(named).decode(), work.claim))
    return len(named) - changed


def _due_at(now: int, delay_seconds: float) -> int:
    return now + int(delay_seconds * 1000) if delay_seconds > 0 else 0
