"""The Queue of an SQLite outbox: what the relay claims and settles.

The invariant: a settlement touches only rows that outbox_claims still holds under its token, and
puts each into another table in the same transaction.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator

import msgspec

from inngest_outbox.outbox.clock import Clock, wall_now_ms
from inngest_outbox.outbox.model import Batch, ClaimRequest, Settlement
from inngest_outbox.outbox.sqlite.claims import SqliteClaims, delete_rows
from inngest_outbox.outbox.sqlite.commit import Job
from inngest_outbox.outbox.sqlite.file.connection import SQL
from inngest_outbox.outbox.sqlite.state import CachedState, StoredCounts
from inngest_outbox.outbox.sqlite.timings import ClaimThrottle
from inngest_outbox.outbox.sqlite.writer import SqliteWriter

_encode = msgspec.json.Encoder().encode


class SqliteQueue:
    """Submits claims and settlements to the writer."""

    def __init__(
        self,
        writer: SqliteWriter,
        claims: SqliteClaims,
        settlements: SqliteSettlements,
        throttle: ClaimThrottle,
    ) -> None:
        self._writer = writer
        self._claims = claims
        self._settlements = settlements
        self._throttle = throttle

    async def claim(self, ask: ClaimRequest) -> Batch:
        """Wait until rows are due, then claim some: never empty."""
        if pause := self._throttle.pause_seconds(ask.max_events):
            await asyncio.sleep(pause)
        self._throttle.claims()
        future = self._writer.claim(ask)
        try:
            batch = await future
        except asyncio.CancelledError:
            # The batch may have arrived at the moment of the cancellation.
            if not future.cancelled() and not future.exception():
                self._claims.abandon(future.result())
                self._writer.wake()
            raise
        self._throttle.claimed(full=len(batch.entries) >= ask.max_events)
        return batch

    async def settle(self, settlement: Settlement) -> int:
        """Settle, atomically; returns how many rows were no longer under this claim."""
        stale: int = await self._writer.submit(self._settlements.job(settlement))
        return stale


class SqliteSettlements:
    """Settles claims, and keeps the counts true."""

    def __init__(
        self, clock: Clock, state: CachedState, counts: StoredCounts, claims: SqliteClaims
    ) -> None:
        self._clock = clock
        self._state = state
        self._counts = counts
        self._claims = claims
        # Settled after the submitter had given up on a disk that hung; the relay repeats each. A
        # repeat finds the rows gone, but no lease was lost.
        self._unseen: dict[str, set[int]] = {}

    def job(self, item: Settlement) -> Job:
        """The work that settles `item`; its result is how many rows were stale.

        A power cut may forget it: the rows are then sent again under the same ids.
        """
        return Job(
            lambda connection: self._settle(connection, item),
            lambda _, is_wanted: self._settled(item, is_wanted=is_wanted),
            synced=False,
        )

    def _settled(self, item: Settlement, *, is_wanted: bool) -> None:
        """Take the settled rows out of the counts."""
        owners = self._claims.owners.get(item.claim, {})
        settled = {*item.delivered, *item.sent, *(dead.seq for dead in item.dead)}
        gone = Counter(map(owners.pop, settled.intersection(owners)))
        for owner, count in gone.items():
            self._counts.left(owner, count)
        for retry in item.retry:
            owners.pop(retry.seq, None)
        if not owners:
            self._claims.owners.pop(item.claim, None)
        self._claims.picker.may_have_fair_share |= bool(item.retry)
        if is_wanted:
            self._unseen.pop(item.claim, None)
        else:
            self._unseen.setdefault(item.claim, set()).update(item.seqs)

    def _settle(self, connection: sqlite3.Connection, item: Settlement) -> int:
        named = item.seqs
        if not named:
            return 0
        now, changed = self._clock.now_ms(), 0
        values = {
            "claim": item.claim,
            "now": wall_now_ms(),
            "sent_at": now,
            "ran_ms": self._state.ran_ms(),
        }
        for name, rows in _moves(item, now):
            values["rows"] = _encode(rows).decode()
            changed += connection.execute(SQL[name], values).rowcount
        if item.answered:
            values["rows"] = _encode(item.answered).decode()
            connection.execute(SQL["SETTLE_ANSWERED"], values)
        delete_rows(connection, "SETTLE_END", named, claim=item.claim)
        repeated = len(self._unseen.get(item.claim, set()).intersection(named))
        return max(0, len(named) - changed - repeated)


def _moves(item: Settlement, now: int) -> Iterator[tuple[str, object]]:
    """The statements that move the rows, each with what it is given of them."""
    if item.delivered:
        yield "SETTLE_DELIVERED", item.delivered
    if item.sent:
        yield "SETTLE_SENT", item.sent
    if item.retry:
        yield (
            "SETTLE_RETRY",
            [
                (
                    one.seq,
                    one.attempts,
                    _due_at(now, one.delay_seconds),
                    int(one.isolated),
                    one.note,
                )
                for one in item.retry
            ],
        )
    if item.dead:
        deads = [(one.seq, one.attempts, one.reason, one.detail) for one in item.dead]
        yield "SETTLE_DEAD", deads


def _due_at(now: int, delay_seconds: float) -> int:
    return now + int(delay_seconds * 1000) if delay_seconds > 0 else 0
