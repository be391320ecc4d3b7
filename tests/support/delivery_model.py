"""A model of everything around the relay: the store, Inngest, and what goes wrong with it.

Runs in virtual time. The store is the in-memory one; Inngest takes events in order, as its Event
API does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.inngest.send_result import SendResult
from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.outbox.inngest_id import ENVIRONMENT_HEADER
from inngest_outbox.outbox.model import Batch, ClaimRequest, Settlement
from tests.support.memory_outbox import MemoryOutbox
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_rows import MemoryRow, MemoryRows
from tests.support.virtual_time import now

HEALTHY, REFUSED, FAILING, HANGING, HUGE = "healthy", "refused", "failing", "hanging", "huge"
BLOCKED = {
    "blocked-403": SendResult(403, None, "not here"),
    "blocked-302": SendResult(302, None, "over there"),
    "blocked-408": SendResult(408, None, "too slow"),
    "blocked-429": SendResult(429, None, "slow down", retry_after_seconds=60.0),
    "blocked-503": SendResult(503, None, "later", retry_after_seconds=20.0),
}
ANSWERS = {
    **BLOCKED,
    FAILING: SendResult(500, (), "it broke"),
    HUGE: SendResult(413, (), "too large"),
}
TIMEOUT_SECONDS = 10.0
TRIP_SECONDS = 0.02
_SETTLE_SECONDS = 0.001


class ModelQueue:
    """The in-memory queue, which checks what the relay does. While `failing`, it can't be read."""

    def __init__(self, rows: MemoryRows) -> None:
        self._queue = MemoryQueue(rows)
        self._rows = rows
        self.failing = False
        self.lease_seconds = 0.0
        self.longest_claim_seconds = 0.0

    async def claim(self, ask: ClaimRequest) -> Batch:
        if self.failing:
            raise OutboxUnavailableError
        self.lease_seconds = ask.lease_seconds
        return await self._queue.claim(ask)

    async def settle(self, settlement: Settlement) -> int:
        await asyncio.sleep(_SETTLE_SECONDS)
        changes = {change.seq: change.attempts for change in (*settlement.retry, *settlement.dead)}
        named = [*settlement.delivered, *settlement.sent, *changes]
        assert len(named) == len(set(named)), "a row ends in exactly one place"
        for row in map(self._rows.by_seq.__getitem__, named):
            assert row.claim == settlement.claim, "only claimed rows are settled"
            assert changes.get(row.seq, row.attempts) - row.attempts in (0, 1)
            claimed_seconds = now() - row.claimed_at
            self.longest_claim_seconds = max(self.longest_claim_seconds, claimed_seconds)
        return await self._queue.settle(settlement)


class ModelOutbox(MemoryOutbox):
    """The in-memory store in virtual time, with events for a ModelInngest."""

    def __init__(self, make_queue: Callable[[MemoryRows], ModelQueue] = ModelQueue) -> None:
        super().__init__(now)
        self.queue = make_queue(self.rows)
        self._numbers = itertools.count(1)
        self.environments: Sequence[str | None] = (None,)

    def add(self, kind: str) -> MemoryRow:
        """Append an event that does `kind` to its request."""
        number = next(self._numbers)
        environment = self.environments[number % len(self.environments)]
        payload = f'"{number}:{kind}:{environment}"'.encode()
        event = Event(f"e-{number}", kind, "u-1", "u-1", 0, payload, Meta(environment=environment))
        row = self.rows.append(event)
        assert row.seq == number
        return row


class ModelInngest:
    """`mode` is what goes wrong with it now: None, or a word that `_trouble` knows.

    `answer` is what it says to every request, None for its own.
    """

    def __init__(self, *, max_bytes: int = 1 << 30) -> None:
        self.mode: str | None = None
        self.answer: SendResult | None = None
        self.fault: Exception | None = None
        self.hang_seconds = TIMEOUT_SECONDS
        self.failing_share = 0.0
        self.max_bytes = max_bytes
        self.times: Counter[int] = Counter()
        self.sent_alone: Counter[int] = Counter()
        self.under_way = 0
        self.most_under_way = 0
        self.sent_at: list[tuple[float, int]] = []

    async def send(self, payloads: bytes, headers: Mapping[str, str] = {}) -> SendResult:
        pairs = [one.split(":") for one in json.loads(b"[%b]" % payloads)]
        rows = [(int(seq), kind) for seq, kind, _ in pairs]
        assert {named for _, _, named in pairs} <= {str(headers.get(ENVIRONMENT_HEADER))}
        if len(rows) == 1:
            self.sent_alone[rows[0][0]] += 1
        self.sent_at.append((now(), len(rows)))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.fault is not None:
                raise self.fault
            if self.answer is not None:
                await asyncio.sleep(TRIP_SECONDS)
                return self.answer
            return await self._answer(rows, len(payloads))
        finally:
            self.under_way -= 1

    async def _answer(self, rows: list[tuple[int, str]], size: int) -> SendResult:
        if self.mode is not None:
            return await self._trouble(self.mode, rows)
        await asyncio.sleep(TRIP_SECONDS)
        kinds = {kind for _, kind in rows}
        if HANGING in kinds:
            await asyncio.sleep(self.hang_seconds - TRIP_SECONDS)
            return SendResult(None, words="timeout")
        for kind in kinds & ANSWERS.keys():
            return ANSWERS[kind]
        if size > self.max_bytes:
            return ANSWERS[HUGE]
        if random.random() < self.failing_share:
            return SendResult(500, (), "by chance")
        return self._take(rows)

    def _take(self, rows: list[tuple[int, str]]) -> SendResult:
        healthy = list(itertools.takewhile(lambda row: row[1] != REFUSED, rows))
        self.times.update(seq for seq, _ in healthy)
        ids = tuple("01J" for _ in healthy) if rows else ("",)
        if len(healthy) < len(rows):
            return SendResult(400, ids or ("",), "this event is bad")
        return SendResult(200, ids)

    async def _trouble(self, mode: str, rows: list[tuple[int, str]]) -> SendResult:
        await asyncio.sleep(TIMEOUT_SECONDS if mode == "hang" else TRIP_SECONDS)
        good = list(itertools.takewhile(lambda row: row[1] == HEALTHY, rows))
        if mode == "lost":
            self._take(good)
        if mode == "partial" and len(rows) > 1 and good:
            return self._take(good[:1])
        answers = {
            "away": SendResult(None, words="refused", reached=False),
            "hang": SendResult(None, words="timeout"),
            "lost": SendResult(None, words="reset"),
            "failing": SendResult(500, (), "down"),
            "garbage": SendResult(200, None, "an answer that is not the API's"),
            "busy": SendResult(429, (), "slow down", retry_after_seconds=3.0),
            "no_key": SendResult(401, (), "Event key not found"),
            "refusing": SendResult(400, ("",), "publish failed"),
            "too_large": SendResult(413, None, "too large"),
            "partial": SendResult(200, ("",)),
        }
        return answers[mode]


MODES = ("away", "hang", "lost", "failing", "garbage", "busy", "no_key", "partial")
