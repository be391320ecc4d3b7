"""Samples of the outbox's figures, for metrics, the operators' page and the outbox's history.

One sample is taken at a time, on a connection of its own, so that no request waits for it. When the
store can't be read the last figures stay; `sampled_timestamp_seconds` says how old they are.

A minute of history is kept in the outbox once it is over, and survives restarts. Where several
processes see the same outbox, the first one to offer a minute keeps it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator

import structlog

from inngest_outbox.console.operations.views import PAUSED, Movement, StatsView, moved, stats_view
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.figures import MINUTE_MS, Sample
from inngest_outbox.outbox.model import State
from inngest_outbox.outbox.ports import Inspector, Samples

SAMPLE_SECONDS = 10.0
WATCHED_SECONDS = 2.0
# From the best to the worst; one that is not known is the worst.
DELIVERY_STATES = ("healthy", "recovering", PAUSED, "backing_off", "misconfigured")
_COSTLY_SECONDS = 0.05

log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.1
_KEPT_SECONDS = 10.0
_MAX_REASON_CHARS = 300


class History:
    """Keeps each minute."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._minute = Minute()

    async def remember(self, now_ms: int, latest: Movement) -> None:
        """Take what was just seen. A store that fails loses the minute and nothing else."""
        over = self._minute.add(now_ms, latest)
        if over is None:
            return
        try:
            await self._samples.add(over)
        except OutboxUnavailableError as error:
            log.warning("sample_not_kept", reason=str(error))


class Minute:
    """Sums up one minute after another; its first is a part of one."""

    def __init__(self) -> None:
        self._at_ms = 0
        self._before_ms = 0
        self._sample: Sample | None = None
        self._seconds = 0.0
        self._accepted = 0.0
        self._delivered = 0.0

    def add(self, now_ms: int, latest: Movement) -> Sample | None:
        """Take what was seen at `now_ms`; returns the minute before when it is over.

        The rates of what was seen are those since it was seen last.
        """
        at_ms = now_ms - now_ms % MINUTE_MS
        over = self.sum_up() if at_ms != self._at_ms else None
        if at_ms != self._at_ms:
            self._at_ms, self._sample = at_ms, None
            self._seconds = self._accepted = self._delivered = 0.0
        seconds = max(0, min(now_ms - self._before_ms, MINUTE_MS)) / 1000
        self._seconds += seconds
        self._accepted += latest.accepted_rate * seconds
        self._delivered += latest.delivered_rate * seconds
        self._sample = _worse(self._sample, sample_of(at_ms, latest))
        self._before_ms = now_ms
        return over

    def sum_up(self) -> Sample | None:
        """The minute so far, None before anything was seen."""
        if self._sample is None:
            return None
        seconds = self._seconds or 1.0
        one = self._sample
        return Sample(
            at_ms=one.at_ms,
            waiting=one.waiting,
            dead=one.dead,
            accepted_rate=round(self._accepted / seconds, 3),
            delivered_rate=round(self._delivered / seconds, 3),
            state=one.state,
            reason=one.reason,
        )


def sample_of(at_ms: int, latest: Movement) -> Sample:
    """The latest figures as a sample of `at_ms`."""
    delivery = latest.view.delivery
    reason = (delivery.reason or "")[:_MAX_REASON_CHARS]
    rates = latest.accepted_rate, latest.delivered_rate
    return Sample(at_ms, latest.view.waiting, latest.view.dead, *rates, delivery.state, reason)


def _worse(before: Sample | None, now: Sample) -> Sample:
    """The most that waited, and the worst state; otherwise the later one."""
    if before is None:
        return now
    worst = max(before, now, key=lambda one: _badness(one.state))
    most = max(before.waiting, now.waiting)
    return Sample(now.at_ms, most, now.dead, 0.0, 0.0, worst.state, worst.reason)


def _badness(state: str) -> int:
    return DELIVERY_STATES.index(state) if state in DELIVERY_STATES else len(DELIVERY_STATES)


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
            try:
                await self.sample()
            except OutboxUnavailableError as error:
                log.warning("sample_failed", reason=str(error))
            await self._sleep()

    async def sample(self) -> Movement:
        """Take one sample. Raises OutboxUnavailableError: the last figures stay."""
        began = time.monotonic()
        stats = await self._inspector.stats()
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
        return latest

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
        for name in DELIVERY_STATES:
            gauge("delivery_state", float(name == view.delivery.state), state=name)
        gauge("oldest_due_seconds", view.oldest_due_seconds or 0.0)
        gauge("oldest_pending_seconds", view.oldest_pending_seconds or 0.0)
        gauge("drain_eta_seconds", math.inf if view.eta_seconds is None else view.eta_seconds)
        gauge("database_bytes", view.database_bytes)
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
