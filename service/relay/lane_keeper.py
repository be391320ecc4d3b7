"""The lane's keeper: the lane as it stands in this process, and its record in the store.

The record is for restarts, for people and for other processes; only its pause comes back from it.
The invariant: what this process has seen of Inngest is never overwritten by the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from service.errors import OutboxUnavailableError
from service.outbox.outbox import LaneRecord, Queue
from service.relay.lane import MAX_RETRY_AFTER_SECONDS, Lane, LaneState

LANE_POLL_SECONDS = 1.0
_RATE_WEIGHT = 0.3

log = structlog.get_logger(__name__)


class LaneKeeper:
    """Holds the lane. `changed` is called when sends may have to begin or to wait."""

    def __init__(self, queue: Queue, lane: Lane, changed: Callable[[], None]) -> None:
        self._queue = queue
        self._changed = changed
        self._since_ms = int(time.time() * 1000)
        self._restored = False
        self._delivered = 0
        self.lane = lane
        self.rate = 0.0

    async def restore(self) -> None:
        """Take up a lane that was in trouble, once: it asks with one event.

        Paused stays paused. A wrong configuration may have been put right, so it is tried at once.
        """
        if self._restored:
            return
        record = await self._queue.load_lane()
        self._restored = True
        if record is None:
            return
        if record.state != LaneState.OPEN:
            wait = min(record.reopens_in_seconds, MAX_RETRY_AFTER_SECONDS)
            if record.state == LaneState.MISCONFIGURED:
                wait = 0.0
            self.lane = self.lane.resumed(
                LaneState(record.state),
                reason=record.reason,
                reopens_at=asyncio.get_running_loop().time() + wait,
            )
            self._since_ms = record.since_ms
        self._adopt(record)

    async def keep(self) -> None:
        """Exchange the lane with the store, until cancelled."""
        while True:
            await asyncio.sleep(LANE_POLL_SECONDS)
            self.rate += (self._delivered / LANE_POLL_SECONDS - self.rate) * _RATE_WEIGHT
            self._delivered = 0
            with contextlib.suppress(OutboxUnavailableError):
                record = await self._queue.load_lane()
                if record:
                    self._adopt(record)
                if record is None or self._is_news(record):
                    await self.save()

    def move(self, lane: Lane) -> None:
        """Replace the lane; a change of its state is logged."""
        before, self.lane = self.lane, lane
        if before.state is lane.state:
            return
        self._since_ms = int(time.time() * 1000)
        self._changed()
        level = log.error if lane.state is LaneState.MISCONFIGURED else log.warning
        level("lane_changed", before=before.state, after=lane.state, reason=lane.reason or None)

    def delivered(self, count: int) -> None:
        """So many events more were delivered."""
        self._delivered += count

    async def save(self) -> None:
        """Write the record. Raises OutboxUnavailableError."""
        lane = self.lane
        await self._queue.save_lane(
            LaneRecord(
                state=lane.state.value,
                reason=lane.reason,
                window=lane.window,
                failures=lane.failures,
                reopens_in_seconds=max(0.0, lane.reopens_at - asyncio.get_running_loop().time()),
                since_ms=self._since_ms,
                rate=round(self.rate, 1),
            )
        )

    def _adopt(self, record: LaneRecord) -> None:
        paused = record.paused_by is not None
        if paused != self.lane.paused:
            self.lane = self.lane.with_paused(paused=paused)
            self._changed()

    def _is_news(self, record: LaneRecord) -> bool:
        lane = self.lane
        known = (record.state, record.reason, record.failures)
        moved = abs(record.rate - self.rate) > max(1.0, record.rate * 0.1)
        return moved or known != (lane.state.value, lane.reason, lane.failures)
