"""An Inngest in virtual time: answers, stores behind its answers, loses what it had not stored.

It runs a function once for each event id in 24 hours, as the real one does.
"""

from __future__ import annotations

import asyncio
import bisect
import random
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from inngest_outbox.dev.fake_inngest.ulids import request_ulids
from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.held import HeldEvent
from inngest_outbox.inngest.send_result import SendResult
from inngest_outbox.outbox.inngest_id import SEED_HEADER
from tests.support.simulation.inline_world import Clocks

REFUSED, FAILING = "refused", "failing"
DEDUPE_SECONDS = 24 * 3600.0
_TRIP_SECONDS = 0.02
_TIMEOUT_SECONDS = 10.0
_TICK_SECONDS = 0.25


class _Event(msgspec.Struct):
    id: str
    name: str


class SimulatedInngest:
    """`mode` is what is wrong with it: None, or a key of `_FAULTS`, `hang` or `lost`.

    `asked` is set when a request comes, `arrivals` counts those whose events were looked at.
    `sent_beside_itself` are the events that came while an earlier request with them was under way.
    """

    def __init__(self, chance: random.Random, clocks: Clocks, rate: float) -> None:
        self._chance = chance
        self._clocks = clocks
        self._rate = rate
        self.mode: str | None = None
        self.stored: dict[str, str] = {}
        self.runs: dict[str, list[float]] = {}
        self.arrivals = 0
        self.sent_beside_itself: set[str] = set()
        self._under_way: set[str] = set()
        self.asked = asyncio.Event()
        self._order: list[str] = []
        self._queue: deque[tuple[str, str]] = deque()
        self._answered = asyncio.Event()

    async def send(self, payloads: bytes, headers: Mapping[str, str] = {}) -> SendResult:
        mode = self.mode
        self.asked.set()
        events = msgspec.json.decode(b"[%b]" % payloads, type=list[_Event])
        ids = {event.id for event in events}
        self.sent_beside_itself |= ids & self._under_way
        self._under_way |= ids
        try:
            await asyncio.sleep(_TIMEOUT_SECONDS if mode == "hang" else _TRIP_SECONDS)
        finally:
            self._under_way -= ids
        if mode == "hang":
            return SendResult(None, words="timeout")
        if mode in _FAULTS:
            return _FAULTS[mode]
        answer = self._take(events, headers.get(SEED_HEADER))
        return SendResult(None, words="reset") if mode == "lost" else answer

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> Sequence[HeldEvent]:
        await asyncio.sleep(_TRIP_SECONDS)
        if self.mode is not None:
            raise InngestApiError(reached=False)
        end = bisect.bisect_left(self._order, before)
        found = self._order[max(0, end - limit) : end]
        return [HeldEvent(ulid, self.stored[ulid]) for ulid in reversed(found)]

    def stop(self) -> None:
        """It is stopped; what it has answered and not stored is lost."""
        self.mode = "away"
        self._queue.clear()

    async def run(self) -> None:
        """Store what was answered, at the rate, until cancelled."""
        due = 0.0
        while True:
            if not self._queue:
                self._answered.clear()
                await self._answered.wait()
            await asyncio.sleep(_TICK_SECONDS)
            due = min(due + self._rate * _TICK_SECONDS, float(len(self._queue)))
            for _ in range(int(due)):
                self._store(*self._queue.popleft())
            due -= int(due)

    def _take(self, events: Sequence[_Event], seed: str | None) -> SendResult:
        if any(event.name == FAILING for event in events):
            return SendResult(500, (), "it broke")
        self.arrivals += 1
        good = events
        for number, event in enumerate(events):
            if event.name == REFUSED:
                good = events[:number]
                break
        ulids = request_ulids(seed, len(good), int(self._clocks.wall() * 1000))
        for ulid, event in zip(ulids, good, strict=True):
            self._accept(ulid, event.id)
        if len(good) < len(events):
            return SendResult(400, tuple(ulids) or ("",), "this event is bad")
        return SendResult(200, tuple(ulids))

    def _accept(self, ulid: str, event_id: str) -> None:
        self._queue.append((ulid, event_id))
        self._answered.set()

    def _store(self, ulid: str, event_id: str) -> None:
        if ulid not in self.stored:
            self.stored[ulid] = event_id
            bisect.insort(self._order, ulid)
        now, runs = self._clocks.monotonic(), self.runs.setdefault(event_id, [])
        if not runs or now - runs[-1] > DEDUPE_SECONDS:
            runs.append(now)


_FAULTS = {
    "away": SendResult(None, words="refused", reached=False),
    "failing": SendResult(500, (), "down"),
    "garbage": SendResult(200, None, "an answer that is not the API's"),
    "busy": SendResult(429, (), "slow down", retry_after_seconds=30.0),
    "no_key": SendResult(401, (), "Event key not found"),
}
MODES = (*_FAULTS, "hang", "lost", "away", "away")
