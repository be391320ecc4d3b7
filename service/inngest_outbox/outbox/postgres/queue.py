"""The queue on PostgreSQL: waiting for rows, claiming and settling them.

Leases and due times are read from the database's clock only. A claim whose answer was lost is
released as soon as the database answers again, or by its lease. A cancelled claim continues in the
background and is released when its answer arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.event import decode_meta
from inngest_outbox.outbox.limits import FAIR_SHARE
from inngest_outbox.outbox.model import Batch, ClaimRequest, Entry, Isolated, Settlement
from inngest_outbox.outbox.postgres.database.pool import PostgresPool
from inngest_outbox.outbox.storable import storable
from inngest_outbox.shielded import shielded
from inngest_outbox.supervisor import Supervisor

_CLAIM_SECONDS = 5.0
_SETTLE_SECONDS = 5.0
_POLL_SECONDS = 0.075
_LEAST_WAIT_SECONDS = 0.005
_HELD_SECONDS = 3600.0  # after its lease: a settlement may come late, and yet before the release
_MOST = 2**62

_FAIR_SHARE, _NEWEST, _OLDEST = 1, 2, 3  # the lanes of CLAIM


@dataclass(eq=False, slots=True)
class _Held:
    """A claim of this process: its rows that are not settled, each with its owner and size.

    `waiting` are for the next statement of the claim, which `settling` runs. `unsure`: one had no
    answer, and may have run.
    """

    lease_until: float
    rows: dict[int, tuple[str, int]]
    waiting: list[Settlement] = field(default_factory=list)
    settling: asyncio.Task[set[int]] | None = None
    unsure: bool = False


class PostgresQueue:
    """Hands out due rows; an async context manager that releases its claims at its exit."""

    def __init__(self, pool: PostgresPool, wakeup: Wakeup, supervisor: Supervisor) -> None:
        self._pool = pool
        self._wakeup = wakeup
        self._supervisor = supervisor
        self._holder = uuid.uuid4().hex
        self._claiming = asyncio.Lock()
        self._fair_share_turn = False
        self._wants_isolated = True
        self._held: dict[str, _Held] = {}
        self._lost: set[str] = set()  # claims that it will not settle; nothing of them was sent
        self._attempts: set[asyncio.Task[Batch | None]] = set()
        self._releases: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._supervisor.watch("outbox-poll", self._poll)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("outbox-poll")
        settling = [held.settling for held in self._held.values() if held.settling]
        await asyncio.gather(*self._attempts, *self._releases, *settling, return_exceptions=True)
        with contextlib.suppress(OutboxUnavailableError):
            await self._release_lost()
            await self._release(self._held, sent=True)

    async def claim(self, wanted: ClaimRequest) -> Batch:
        """As the port says."""
        while True:
            generation = self._wakeup.generation
            if found := await self._claim_uncancelled(wanted):
                return found
            self._wants_isolated = wanted.isolated is not Isolated.NONE
            await self._wakeup.wait(generation)

    async def settle(self, settlement: Settlement) -> int:
        """As the port says. Those of one claim that wait for an earlier one share a statement.

        They would wait for its commit in the database too, and each writes the whole claim.
        """
        held = self._held.get(settlement.claim)
        if held is None:
            return len(set(settlement.seqs))
        held.waiting.append(settlement)
        if held.settling is None or len(held.waiting) == 1:
            held.settling = asyncio.create_task(
                self._settle(held, after=held.settling), name="outbox-settle"
            )
        stale = await shielded(held.settling)
        return len(stale.intersection(settlement.seqs))

    async def expire(self) -> None:
        """Make the rows due of all claims whose lease is over. Raises OutboxUnavailableError."""
        await self._release((), sent=True, over=True)

    async def _settle(self, held: _Held, *, after: asyncio.Task[set[int]] | None) -> set[int]:
        """Settle what waits; the rows that are no longer under the claim."""
        if after:
            await asyncio.wait([after])
        settlement, held.waiting = joined(held.waiting), []
        given = settle_values(settlement, held.rows)
        # While the lease lasts, only a settlement takes rows from the claim.
        given["repeated"] = held.unsure and time.monotonic() < held.lease_until
        try:
            stale = await self._pool.run(
                "SETTLE", given, within_seconds=_SETTLE_SECONDS, repeat_with={"repeated": True}
            )
            if settlement.answered:
                seqs, ulids = zip(*settlement.answered, strict=True)
                await self._pool.run("ANSWERED", {"seqs": [*seqs], "ulids": [*ulids]})
        except OutboxUnavailableError:
            held.unsure = True
            raise
        for seq in settlement.seqs:
            held.rows.pop(seq, None)
        if not held.rows:
            self._held.pop(settlement.claim, None)
        if any(one.delay_seconds <= 0 for one in settlement.retry):
            self._wakeup.rows_are_due()
        return {seq for (seq,) in stale}

    async def _claim_uncancelled(self, wanted: ClaimRequest) -> Batch | None:
        attempt = asyncio.create_task(self._attempt(wanted), name="outbox-claim")
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)
        try:
            return await shielded(attempt)
        except asyncio.CancelledError:
            attempt.add_done_callback(self._abandon)
            raise

    def _abandon(self, attempt: asyncio.Task[Batch | None]) -> None:
        found = None if attempt.cancelled() or attempt.exception() else attempt.result()
        if found:
            self._lost.add(found.claim)
            release = asyncio.create_task(self._release_abandoned(), name="outbox-release")
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)

    async def _release_abandoned(self) -> None:
        """Release lost claims; what can't be released now is before the next claim."""
        with contextlib.suppress(OutboxUnavailableError):
            await self._release_lost()

    async def _release_lost(self) -> None:
        if lost := list(self._lost):
            await self._release(lost, sent=False)
            self._lost.difference_update(lost)

    async def _release(self, claims: Iterable[str], *, sent: bool, over: bool = False) -> None:
        named = list(claims)
        given = {"claims": named, "sent": sent, "over": over}
        [(rows,)] = await self._pool.run("RELEASE", given)
        for claim in named:
            self._held.pop(claim, None)
        if rows:
            self._wakeup.rows_are_due()

    async def _attempt(self, wanted: ClaimRequest) -> Batch | None:
        async with self._claiming:
            await self._release_lost()
            self._fair_share_turn = not self._fair_share_turn
            values = claim_values(wanted, fair_share_turn=self._fair_share_turn)
            found = await self._take(wanted, values)
            if not found and wanted.isolated is Isolated.LAST:
                found = await self._take(wanted, {**values, "alone": 1})
            return found

    async def _take(self, wanted: ClaimRequest, values: dict[str, object]) -> Batch | None:
        claim = f"{self._holder}:{uuid.uuid4().hex}"
        given = {**values, "claim": claim, "lease_seconds": wanted.lease_seconds}
        try:
            # A repetition could find nothing because the first run had taken everything.
            rows = await self._pool.run(
                "CLAIM", given, within_seconds=_CLAIM_SECONDS, repeat_with=None
            )
        except OutboxUnavailableError:
            self._lost.add(claim)
            raise
        return self._batch(claim, rows, wanted.lease_seconds) if rows else None

    def _batch(self, claim: str, rows: list[tuple[Any, ...]], lease_seconds: float) -> Batch:
        now = time.monotonic()
        for one, held in [*self._held.items()]:
            if held.lease_until < now - _HELD_SECONDS:
                del self._held[one]
        owned = {row[0]: (row[-2], len(row[-1])) for row in rows}
        self._held[claim] = _Held(now + lease_seconds, owned)
        entries = tuple([Entry(*[*row[:8], decode_meta(row[8])]) for row in rows])
        return Batch(claim, entries, b",".join([row[-1] for row in rows]))

    async def _poll(self) -> None:
        """Wake waiting claims when a row is due: another process may have stored it."""
        while True:
            wait = _POLL_SECONDS
            if self._wakeup.waiting:
                given = {"isolated": self._wants_isolated}
                with contextlib.suppress(OutboxUnavailableError):
                    [(due_seconds,)] = await self._pool.run("NEXT_DUE", given)
                    if due_seconds is not None and due_seconds <= 0:
                        self._wakeup.rows_are_due()
                    elif due_seconds is not None:
                        wait = min(wait, due_seconds)
            await asyncio.sleep(max(wait, _LEAST_WAIT_SECONDS))


def claim_values(wanted: ClaimRequest, *, fair_share_turn: bool) -> dict[str, object]:
    """The parameters of CLAIM but the claim's own."""
    newest = min(wanted.max_events, int(wanted.max_events * wanted.fresh_share))
    fair_share = max(int(wanted.max_events * FAIR_SHARE), int(fair_share_turn))
    fair_share = min(fair_share, wanted.max_events - newest)
    lead = _NEWEST if newest == wanted.max_events else _FAIR_SHARE if fair_share_turn else _OLDEST
    newest_bytes = int(wanted.max_bytes * wanted.fresh_share)
    return {
        "alone": int(wanted.isolated is Isolated.FIRST),
        "lead": lead,
        "events": wanted.max_events,
        "newest": newest,
        "fair_share": fair_share,
        "bytes": wanted.max_bytes,
        "places": [fair_share, newest, wanted.max_events],
        "shares": [int(wanted.max_bytes * FAIR_SHARE), newest_bytes, _MOST],
    }


def joined(settlements: Sequence[Settlement]) -> Settlement:
    """One settlement that says what those of one claim say."""
    named = zip(*(msgspec.structs.astuple(one)[1:] for one in settlements), strict=True)
    together = (tuple(itertools.chain.from_iterable(each)) for each in named)
    return Settlement(settlements[0].claim, *together)


def settle_values(settlement: Settlement, owned: dict[int, tuple[str, int]]) -> dict[str, object]:
    """The parameters of SETTLE. A row that is named twice goes where it is named first."""
    rows: dict[int, tuple[object, ...]] = {}
    for seqs, state in ((settlement.delivered, "delivered"), (settlement.sent, "sent")):
        for seq in seqs:
            rows.setdefault(seq, (state, None, None, None, None, None))
    for one in settlement.retry:
        note = one.note and storable(one.note)
        delay = max(0.0, float(one.delay_seconds))
        rows.setdefault(one.seq, ("pending", one.attempts, one.isolated, delay, note, None))
    for each in settlement.dead:
        words = storable(each.reason), storable(each.detail)
        rows.setdefault(each.seq, ("dead", each.attempts, None, None, *words))
    states, attempts, isolated, delays, words_, details = (
        zip(*rows.values(), strict=True) if rows else [()] * 6
    )
    known = [owned.get(seq, (None, None)) for seq in rows]
    return {
        "claim": settlement.claim,
        "repeated": False,
        "seqs": list(rows),
        "states": list(states),
        "owners": [owner for owner, _ in known],
        "sizes": [size for _, size in known],
        "attempts": list(attempts),
        "isolated": list(isolated),
        "delays": list(delays),
        "words": list(words_),
        "details": list(details),
    }


class Wakeup:
    """Wakes waiting claims of this process when rows may be due.

    `generation` grows with every wake-up, `waiting` claims wait now.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.waiting = 0
        self._woken = asyncio.Event()

    def rows_are_due(self) -> None:
        """Wake the claims that wait."""
        self.generation += 1
        self._woken.set()
        self._woken = asyncio.Event()

    async def wait(self, generation: int) -> None:
        """Return after a wake-up since `generation` was read."""
        woken = self._woken
        if generation == self.generation:
            self.waiting += 1
            try:
                await woken.wait()
            finally:
                self.waiting -= 1
