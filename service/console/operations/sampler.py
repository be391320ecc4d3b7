"""Samples the outbox's figures for metrics, for the operators' page and for its history.

One sample is taken at a time, on a connection of its own, so that no request waits for it. When the
store can't be read the last figures stay; `sampled_timestamp_seconds` says how old they are.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator

import structlog

from service.console.operations.history import History
from service.console.operations.views import PAUSED, Movement, StatsView, moved, stats_view
from service.errors import OutboxUnavailableError
from service.observe.recorder import Recorder
from service.outbox.clock import wall_now_ms
from service.outbox.model import State
from service.outbox.ports import Inspector

SAMPLE_SECONDS = 10.0
WATCHED_SECONDS = 2.0
DELIVERY_STATES = ("healthy", "recovering", "backing_off", "misconfigured", PAUSED)
_COSTLY_SECONDS = 0.05

log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.1
_KEPT_SECONDS = 10.0


class Sampler:
    """Samples every `seconds`; every 2 while someone watches, if a sample is cheap.

    `history` remembers each sample. Without one another process does, and this one samples only
    while someone watches.
    """

    def __init__(
        self,
        inspector: Inspector,
        recorder: Recorder,
        history: History | None = None,
        seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self._history, self._seconds = history, seconds
        self._watched = asyncio.Event()
        self._inspector = inspector
        self._recorder = recorder
        self._latest: Movement | None = None
        self._looked_at = 0.0
        self._cost_seconds = 0.0
        self._sampled = asyncio.Event()
        self._watchers = 0

    @property
    def latest(self) -> Movement | None:
        """The latest sample, None before the first."""
        return self._latest

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            if self._history is None:
                await self._watched.wait()
            await self.sample()
            await self._sleep()

    async def sample(self) -> None:
        """Take one sample."""
        began = time.monotonic()
        try:
            stats = await self._inspector.stats()
        except OutboxUnavailableError as error:
            log.warning("sample_failed", reason=str(error))
            return
        now = time.monotonic()
        self._cost_seconds = now - began
        view = stats_view(stats, serving=True)
        self._latest = latest = moved(self._latest, view, now - self._looked_at)
        self._looked_at = now
        self._record(view)
        sampled, self._sampled = self._sampled, asyncio.Event()
        sampled.set()
        if self._history:
            await self._history.remember(wall_now_ms(), latest)

    async def watch(self) -> AsyncGenerator[Movement, None]:
        """The latest sample, then each new one, until the iteration ends."""
        self._watchers += 1
        self._watched.set()
        try:
            while True:
                sampled = self._sampled
                if self._latest:
                    yield self._latest
                await sampled.wait()
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._watched.clear()

    async def _sleep(self) -> None:
        """Sleep until the next sample is due. A new watcher makes it due sooner."""
        until = time.monotonic() + self._seconds
        while (left := until - time.monotonic()) > 0:
            watched = self._watchers and self._cost_seconds < _COSTLY_SECONDS
            if watched and left <= self._seconds - WATCHED_SECONDS:
                return
            await asyncio.sleep(min(left, WATCHED_SECONDS))

    def _record(self, view: StatsView) -> None:
        gauge = self._recorder.gauge
        for state in State:
            gauge("rows", getattr(view, state.value), state=state.value)
        delivery = view.delivery.state if view.delivery else None
        for name in DELIVERY_STATES:
            gauge("delivery_state", float(name == delivery), state=name)
        gauge("oldest_due_seconds", view.oldest_due_seconds or 0.0)
        gauge("oldest_pending_seconds", view.oldest_pending_seconds or 0.0)
        gauge("drain_eta_seconds", math.inf if view.eta_seconds is None else view.eta_seconds)
        gauge("database_bytes", view.database_bytes or 0)
        gauge("wal_bytes", view.wal_bytes or 0)
        gauge("sampled_timestamp_seconds", time.time())


async def keep_lag(recorder: Recorder) -> None:
    """Measure the delay of this event loop until cancelled."""
    worst: deque[float] = deque(maxlen=round(_KEPT_SECONDS / _LOOK_SECONDS))
    while True:
        began = time.perf_counter()
        await asyncio.sleep(_LOOK_SECONDS)
        worst.append(max(0.0, time.perf_counter() - began - _LOOK_SECONDS))
        recorder.gauge("event_loop_lag_seconds", max(worst))
