"""The in-memory queue: claims, settlements and confirmations by the rules of the ports."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from operator import attrgetter

import msgspec

from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.model import (
    Batch,
    ClaimRequest,
    Dead,
    Isolated,
    Retry,
    SentEntry,
    Settlement,
    State,
)
from tests.support.memory_rows import IDS, MemoryRow, MemoryRows


class MemoryQueue:
    def __init__(self, rows: MemoryRows) -> None:
        self.rows = rows

    async def claim(self, ask: ClaimRequest) -> Batch:
        await asyncio.sleep(0)  # as at a real store, a caller may give up before anything is taken
        while not (picked := _pick(self.rows.due(), ask)):
            await self.rows.wait()
        claim = self.rows.take(picked, ask.lease_seconds)
        payloads = b",".join(row.event.payload for row in picked)
        return Batch(claim, tuple(row.entry() for row in picked), payloads)

    async def settle(self, settlement: Settlement) -> int:
        ends: list[tuple[int, State, Retry | Dead | None]] = [
            *((seq, State.DELIVERED, None) for seq in settlement.delivered),
            *((seq, State.SENT, None) for seq in settlement.sent),
            *((retry.seq, State.PENDING, retry) for retry in settlement.retry),
            *((dead.seq, State.DEAD, dead) for dead in settlement.dead),
        ]
        stale = 0
        for seq, state, change in ends:
            row = self.rows.by_seq.get(seq)
            if row is None or row.claim != settlement.claim:
                stale += 1
            else:
                self._end(row, state, change)
        for seq, ulid in settlement.answered:
            event = self.rows.by_seq[seq].event
            meta = msgspec.structs.replace(event.meta, answered_id=ulid)
            self.rows.by_seq[seq].event = msgspec.structs.replace(event, meta=meta)
        self.rows.wake()
        return stale

    def _end(self, row: MemoryRow, state: State, change: Retry | Dead | None) -> None:
        now = self.rows.now()
        self.rows.end_claim(row, state)
        row.attempts = row.attempts + 1 if change is None else change.attempts
        if state is State.SENT:
            row.answered_at = now
        elif state is not State.PENDING:
            row.settled_at = now
        if isinstance(change, Retry):
            row.isolated, row.due_at = change.isolated, now + change.delay_seconds
            row.note(change.note, now)
        if isinstance(change, Dead):
            row.reason, row.detail = change.reason, change.detail


class MemoryConfirmations:
    inngest_ids: InngestIds = IDS

    def __init__(self, rows: MemoryRows) -> None:
        self.rows = rows
        self.another_asks = False
        self.stopped = 0

    async def may_ask(self) -> bool:
        return not self.another_asks

    async def stop_asking(self) -> None:
        self.stopped += 1

    async def sent(self, limit: int, after_seq: int = 0) -> Sequence[SentEntry]:
        rows = [row for row in self.rows.in_state(State.SENT) if row.seq > after_seq]
        now = self.rows.now()
        return [row.sent_entry(now) for row in rows[:limit]]

    async def count_sent(self) -> int:
        return self.rows.count(State.SENT)

    async def confirm(self, seqs: Sequence[int]) -> int:
        rows = self._sent(seqs)
        for row in rows:
            self.rows.put(row, State.DELIVERED)
            row.settled_at = self.rows.now()
        return len(rows)

    async def resend(self, seqs: Sequence[int], note: str) -> int:
        rows, now = self._sent(seqs), self.rows.now()
        for row in rows:
            self.rows.put(row, State.PENDING)
            row.due_at, row.attempts = now, row.attempts - 1
            row.note(note, now)
        self.rows.wake()
        return len(rows)

    async def delivered(
        self, limit: int, after_seq: int = 0, *, within_seconds: float | None = None
    ) -> Sequence[SentEntry]:
        now = self.rows.now()
        rows = [row for row in self.rows.in_state(State.DELIVERED) if row.seq > after_seq]
        within = float("inf") if within_seconds is None else within_seconds
        entries = (row.sent_entry(now) for row in rows)
        wanted = [one for one in entries if one.sent_seconds <= within]
        return wanted[:limit]

    def _sent(self, seqs: Sequence[int]) -> list[MemoryRow]:
        wanted = set(seqs)
        return [row for row in self.rows.in_state(State.SENT) if row.seq in wanted]


def _pick(due: Sequence[MemoryRow], ask: ClaimRequest) -> list[MemoryRow]:
    others = [row for row in due if not row.isolated]
    last = ask.isolated is Isolated.LAST and not others
    if len(others) < len(due) and (last or ask.isolated is Isolated.FIRST):
        return [min((row for row in due if row.isolated), key=attrgetter("due_at"))]
    if len(others) <= ask.max_events and len(_fitting(others, ask.max_bytes)) == len(others):
        return others
    newest = _newest(others, ask)
    share = ask.fresh_share if newest else 0.0
    taken = {row.seq for row in newest}
    rest = [row for row in others if row.seq not in taken][: ask.max_events - len(newest)]
    oldest = _fitting(rest, int(ask.max_bytes * (1 - share))) or ([] if newest else rest[:1])
    return sorted([*oldest, *newest], key=lambda row: row.seq)


def _newest(others: Sequence[MemoryRow], ask: ClaimRequest) -> list[MemoryRow]:
    count = int(ask.max_events * ask.fresh_share)
    newest = list(reversed(others))[:count]
    fitting = _fitting(newest, int(ask.max_bytes * ask.fresh_share))
    return fitting or (newest[:1] if ask.fresh_share >= 1 else [])


def _fitting(rows: Sequence[MemoryRow], max_bytes: int) -> list[MemoryRow]:
    sizes = itertools.accumulate(len(row.event.payload) for row in rows)
    return [row for row, size in zip(rows, sizes, strict=True) if size <= max_bytes]
