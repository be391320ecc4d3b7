"""A model of everything around the relay: the store's queue, Inngest, and what goes wrong with it.

Runs in virtual time. The queue follows the port's rules and checks that the relay does; Inngest
takes events in order, as its Event API does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from service.errors import OutboxUnavailableError
from service.outbox.model import Batch, ClaimRequest, DeliveryRecord, Entry, Isolated, Settlement
from service.relay.send_result import SendResult

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
_TICK_SECONDS = 1e-6  # below it a sum of floats moves no clock


OPEN = DeliveryRecord("healthy", "", 1, 0, 0.0, 0)


@dataclass
class ModelRow:
    seq: int
    kind: str
    born_at: float
    state: str = "pending"
    attempts: int = 0
    isolated: bool = False
    due_at: float = 0.0
    sends: int = 0
    claim: str | None = None
    claimed_at: float = 0.0
    answered_at: float = 0.0
    settled_at: float | None = None
    reason: str = ""

    @property
    def payload(self) -> bytes:
        return f'"{self.seq}:{self.kind}"'.encode()


@dataclass
class ModelQueue:
    rows: dict[int, ModelRow] = field(default_factory=dict)
    record: DeliveryRecord = OPEN
    stale: int = 0
    failing: bool = False
    lease_seconds: float = 0.0
    longest_claim_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._woken = asyncio.Event()

    def add(self, kind: str) -> ModelRow:
        row = ModelRow(next(self._numbers), kind, _now())
        self.rows[row.seq] = row
        self._woken.set()
        return row

    def give_back(self) -> None:
        """Rows under a claim of a process that is gone are due again."""
        for row in self.rows.values():
            if row.claim is not None:
                row.claim, row.sends = None, row.sends + 1

    def discard(self, row: ModelRow) -> None:
        assert row.claim is None
        del self.rows[row.seq]

    async def claim(self, ask: ClaimRequest) -> Batch:
        if self.failing:
            raise OutboxUnavailableError
        while not (rows := self._pick(ask)):
            soon = _now() + _TICK_SECONDS
            wake = [row.due_at - _now() for row in self._free() if row.due_at > soon]
            self._woken.clear()
            waiting = asyncio.ensure_future(self._woken.wait())
            try:
                await asyncio.wait({waiting}, timeout=min(wake, default=3600.0))
            finally:
                waiting.cancel()
        claim = f"c-{next(self._numbers)}"
        for row in rows:
            row.claim, row.claimed_at = claim, _now()
        self.lease_seconds = ask.lease_seconds
        return Batch(
            claim, tuple(_entry(row) for row in rows), b",".join(row.payload for row in rows)
        )

    async def settle(self, settlement: Settlement) -> int:
        await asyncio.sleep(0.001)
        ends = [
            *((seq, "delivered", None) for seq in settlement.delivered),
            *((seq, "sent", None) for seq in settlement.sent),
            *((retry.seq, "pending", retry) for retry in settlement.retry),
            *((dead.seq, "dead", dead) for dead in settlement.dead),
        ]
        named = [seq for seq, _, _ in ends]
        held = [row.seq for row in self.rows.values() if row.claim == settlement.claim]
        assert len(named) == len(set(named)), "a row ends in exactly one place"
        assert set(named) <= set(held), "only claimed rows are settled"
        for seq, state, change in ends:
            row = self.rows[seq]
            row.state, row.claim, row.sends = state, None, row.sends + 1
            self.longest_claim_seconds = max(self.longest_claim_seconds, _now() - row.claimed_at)
            if state in ("delivered", "dead"):
                row.settled_at = _now()
            if state in ("delivered", "sent"):
                row.attempts += 1
                row.answered_at = _now()
            if change is not None:
                assert change.attempts - row.attempts in (0, 1)
                row.attempts = change.attempts
            if state == "pending":
                row.isolated, row.due_at = change.isolated, _now() + change.delay_seconds
            if state == "dead":
                row.reason = change.reason
        self._woken.set()
        return 0

    def sent_rows(self) -> list[ModelRow]:
        return [row for row in self.rows.values() if row.state == "sent"]

    def confirm(self, row: ModelRow) -> None:
        row.state, row.settled_at = "delivered", _now()

    def send_again(self, row: ModelRow) -> None:
        row.state, row.due_at, row.attempts = "pending", _now(), row.attempts - 1
        self._woken.set()

    async def load(self) -> DeliveryRecord:
        return self.record

    async def save(self, record: DeliveryRecord) -> DeliveryRecord:
        self.record = msgspec.structs.replace(
            record, paused_by=self.record.paused_by, revision=self.record.revision + 1
        )
        return self.record

    def ask_now(self) -> None:
        """What `outbox resume --now` does."""
        changed = {"reopens_in_seconds": 0.0, "revision": self.record.revision + 1}
        self.record = msgspec.structs.replace(self.record, **changed)

    def _free(self) -> list[ModelRow]:
        return [r for r in self.rows.values() if r.state == "pending" and r.claim is None]

    def _pick(self, ask: ClaimRequest) -> list[ModelRow]:
        due = [row for row in self._free() if row.due_at <= _now() + _TICK_SECONDS]
        isolated = sorted((r for r in due if r.isolated), key=lambda r: (r.due_at, r.seq))
        others = sorted((r for r in due if not r.isolated), key=lambda r: r.seq)
        if isolated and (
            ask.isolated is Isolated.FIRST or (ask.isolated is Isolated.LAST and not others)
        ):
            return isolated[:1]
        fresh = int(ask.max_events * ask.fresh_share)
        picked = others[: ask.max_events - fresh]
        picked += others[len(picked) :][-fresh:] if fresh else []
        sizes = itertools.accumulate(len(row.payload) for row in picked)
        return [
            row
            for index, (row, size) in enumerate(zip(picked, sizes, strict=True))
            if index == 0 or size <= ask.max_bytes
        ]


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

    async def send(self, payloads: bytes, seed: str | None = None) -> SendResult:
        pairs = [one.split(":") for one in json.loads(b"[%b]" % payloads)]
        rows = [(int(seq), kind) for seq, kind in pairs]
        if len(rows) == 1:
            self.sent_alone[rows[0][0]] += 1
        self.sent_at.append((_now(), len(rows)))
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


def _entry(row: ModelRow) -> Entry:
    return Entry(
        seq=row.seq,
        event_id=f"e-{row.seq}",
        accepted_at_ms=0,
        user_id="u-1",
        attempts=row.attempts,
        isolated=row.isolated,
        sends=row.sends,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
