"""The outbox's history in minutes, which survives restarts: for charts and for stories of events.

A minute is kept in the outbox once it is over. Where several processes see the same outbox, the
first one to offer a minute keeps it.
"""

from __future__ import annotations

import structlog

from service.console.operations.views import PAUSED, Movement
from service.errors import OutboxUnavailableError
from service.outbox.figures import MINUTE_MS, Sample
from service.outbox.ports import Samples

log = structlog.get_logger(__name__)
# From the best to the worst; one that is not known is the worst.
_STATES = ("healthy", "recovering", PAUSED, "backing_off", "misconfigured")
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
        self._sample = _worse(self._sample, _seen(at_ms, latest))
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


def _seen(at_ms: int, latest: Movement) -> Sample:
    delivery = latest.view.delivery
    state = delivery.state if delivery else _STATES[0]
    reason = (delivery.reason or "")[:_MAX_REASON_CHARS] if delivery else ""
    return Sample(at_ms, latest.waiting, latest.view.dead, 0.0, 0.0, state, reason)


def _worse(before: Sample | None, now: Sample) -> Sample:
    """The most that waited, and the worst state; otherwise the later one."""
    if before is None:
        return now
    worst = max(before, now, key=lambda one: _badness(one.state))
    most = max(before.waiting, now.waiting)
    return Sample(now.at_ms, most, now.dead, 0.0, 0.0, worst.state, worst.reason)


def _badness(state: str) -> int:
    return _STATES.index(state) if state in _STATES else len(_STATES)
