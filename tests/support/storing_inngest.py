"""A model of an Inngest that answers at once and stores later.

Runs in virtual time. `rate` is how many events are stored a second.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import deque
from collections.abc import Sequence

from service.errors import InngestApiError
from service.inngest.held import HeldEvent
from service.outbox.inngest_id import encode_ulid
from tests.support.memory_rows import IDS

_TICK_SECONDS = 0.05


class StoringInngest:
    """Inngest: `send` answers, `run` stores behind it, `stop` loses what is not stored."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.away = False
        self.refusing = False
        self.answer_seconds = 0.005
        self.refused: set[str | None] = set()
        self.questions = 0
        self.stored: set[int] = set()
        self._shown: list[tuple[str, str]] = []
        self._queue: deque[int] = deque()
        self._arrived = asyncio.Event()

    @property
    def queued(self) -> int:
        return len(self._queue)

    def send(self, seqs: Sequence[int]) -> None:
        self._queue.extend(seqs)
        self._arrived.set()

    def stop(self) -> None:
        self.away = True
        self._queue.clear()

    async def run(self) -> None:
        due = 0.0
        while True:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            await asyncio.sleep(_TICK_SECONDS)
            due = min(due + self.rate * _TICK_SECONDS, float(len(self._queue)))
            for _ in range(int(due)):
                self._store(self._queue.popleft())
            due -= int(due)

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> Sequence[HeldEvent]:
        self.questions += 1
        end = bisect.bisect_left(self._shown, (before, ""))
        below = self._shown[max(0, end - limit) : end]
        await asyncio.sleep(self.answer_seconds)
        if self.away:
            raise InngestApiError("away", reached=False)
        if self.refusing:
            raise InngestApiError("refusing")
        if environment in self.refused:
            raise InngestApiError(f"refuses {environment}", refused=True)
        return [HeldEvent(ulid, event_id) for ulid, event_id in below[::-1]]

    def _store(self, seq: int) -> None:
        self.stored.add(seq)
        bisect.insort(self._shown, (encode_ulid(IDS.number(seq, 0)), f"e-{seq}"))
