"""The delivery lane: may I send now, how much, when next? Pure.

::

               trouble                      time is up, one event
    open ───────────────────> closed  <──────────────────────────┐
     ^  ^                       │ the event passes               │ trouble
     │  │ window full again     v                                │
     │  └─────────────────── recovering ─────────────────────────┘
     │
     └── (through recovering) ── misconfigured: like closed, every 5 s

The lane judges Inngest, never an event. Only answers to sends that began after the last trouble
move it (`epoch`), so that four sends which fail together are one trouble. Times are seconds of one
monotonic clock, given by the caller.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from service.outbox.outbox import Suspects

FIRST_BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 5.0
MIN_BACKOFF_SECONDS = 0.02
MAX_RETRY_AFTER_SECONDS = 300.0
MISCONFIGURED_SECONDS = 5.0
FRESH_SHARE = 0.2
REFUSALS_IN_A_ROW = 8
RELAX_AFTER_SENDS = 200
_STEADY_FAILURES = 3


class LaneState(enum.StrEnum):
    """What the lane knows about Inngest."""

    OPEN = "open"
    RECOVERING = "recovering"
    CLOSED = "closed"
    MISCONFIGURED = "misconfigured"


class Signal(enum.StrEnum):
    """What one answer says about Inngest itself."""

    PASSED = "passed"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    TROUBLE = "trouble"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one batch of at most `max_events`, begun in `epoch`."""

    max_events: int
    suspects: Suspects
    epoch: int
    state: LaneState


@dataclass(frozen=True, slots=True)
class Lane:
    """The lane's whole memory.

    `window` is the batch size now allowed, `ceiling` the largest that was not too large,
    `max_events` the configured one. `failures` are troubles in a row, `refused` the distinct
    events refused since the last one that passed. `accused` is a suspect that met trouble while
    others passed before; it is `convicted` when another passes after.
    """

    max_events: int
    senders: int
    state: LaneState = LaneState.OPEN
    reason: str = ""
    window: int = 0
    ceiling: int = 0
    sends_at_ceiling: int = 0
    failures: int = 0
    reopens_at: float = 0.0
    epoch: int = 0
    paused: bool = False
    suspect_turn: bool = True
    passing: bool = False
    refused: frozenset[int] = frozenset()
    accused: int | None = None
    convicted: frozenset[int] = frozenset()

    @classmethod
    def fresh(cls, max_events: int, senders: int) -> Lane:
        """An open lane at full width."""
        return cls(max_events, senders, window=max_events, ceiling=max_events)

    def wait_seconds(self, now: float, in_flight: int, in_epoch: int) -> float | None:
        """How long until a permit can be had: 0 now, None not before an answer or a command.

        `in_flight` are all sends under way, `in_epoch` those begun in this epoch.
        """
        if self.paused:
            return None
        if self.state is LaneState.OPEN:
            return 0.0 if in_flight < self.senders else None
        if in_epoch:
            return None
        return 0.0 if self.state is LaneState.RECOVERING else max(0.0, self.reopens_at - now)

    def permit(self, suspects_in_flight: int) -> Permit:
        """The permit that is due. A suspect is under way at most once."""
        return Permit(self._width(), self._suspects(suspects_in_flight), self.epoch, self.state)

    def began(self, *, alone: bool) -> Lane:
        """A send has begun; suspects and other events take turns."""
        return replace(self, suspect_turn=not alone)

    def _width(self) -> int:
        waiting = self.state in (LaneState.CLOSED, LaneState.MISCONFIGURED)
        return 1 if waiting else min(self.window, self.ceiling)

    def _suspects(self, in_flight: int) -> Suspects:
        if in_flight:
            return Suspects.NONE
        if self.state is LaneState.OPEN:
            return Suspects.FIRST if self.suspect_turn else Suspects.LAST
        # In a long outage the same few events ask again, so that no others become suspects; when
        # everything is refused, an event that was never refused asks.
        steady = self.failures >= _STEADY_FAILURES and not self.refused
        return Suspects.FIRST if steady else Suspects.LAST

    def after(
        self,
        signal: Signal,
        *,
        permit: Permit,
        now: float,
        jitter: float,
        reason: str = "",
        sent: int = 1,
        retry_after_seconds: float | None = None,
        suspect: int | None = None,
    ) -> Lane:
        """The lane after an answer to `sent` events under `permit`.

        `suspect` is the seq of an event that was sent alone, `jitter` is in [0, 1).
        """
        if signal is Signal.TOO_LARGE:
            ceiling = max(1, sent // 2)
            return replace(
                self, ceiling=ceiling, window=min(self.window, ceiling), sends_at_ceiling=0
            )
        if signal is Signal.PASSED:
            return self._passed(permit, suspect)
        if permit.epoch != self.epoch:
            return self
        if signal is Signal.REFUSED:
            return self._refused(suspect, now, jitter)
        if signal is Signal.TROUBLE and self.may_blame(suspect, permit):
            return replace(self, passing=False, accused=suspect)
        wait = self._backoff(self.failures, jitter)
        if retry_after_seconds is not None:
            wait = max(wait, min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS))
        state = LaneState.CLOSED
        if signal is Signal.MISCONFIGURED:
            state, wait = LaneState.MISCONFIGURED, MISCONFIGURED_SECONDS
        return self._close(state, reason, now + wait)

    def may_blame(self, suspect: int | None, permit: Permit) -> bool:
        """Whether trouble with `suspect` alone may be its own: others passed just before."""
        return suspect is not None and self.passing and permit.state is LaneState.OPEN

    def resumed(self, state: LaneState, *, reason: str, reopens_at: float) -> Lane:
        """The lane after a restart in trouble: it asks with one event, not before `reopens_at`."""
        waiting = LaneState.CLOSED if state is LaneState.RECOVERING else state
        return replace(self, state=waiting, reason=reason, window=1, reopens_at=reopens_at)

    def with_paused(self, *, paused: bool) -> Lane:
        """Paused by an operator, or not; what is known of Inngest stays."""
        return replace(self, paused=paused)

    def forget(self, seq: int) -> Lane:
        """A convicted event's trouble has been counted against it."""
        return replace(self, convicted=self.convicted - {seq})

    def _passed(self, permit: Permit, suspect: int | None) -> Lane:
        convicted = self.convicted
        if self.accused is not None and self.accused != suspect:
            convicted |= {self.accused}
        relaxed = self._relaxed()
        lane = replace(
            relaxed, passing=True, refused=frozenset(), accused=None, convicted=convicted
        )
        if permit.epoch != self.epoch:
            return lane
        waiting = self.state in (LaneState.CLOSED, LaneState.MISCONFIGURED)
        window = min(2 if waiting else self.window * 2, self.max_events)
        done = min(window, lane.ceiling) >= min(self.max_events, lane.ceiling)
        state = LaneState.OPEN if done else LaneState.RECOVERING
        return replace(
            lane,
            state=state,
            window=window,
            failures=0,
            reason="" if done else self.reason,
            reopens_at=0.0,
        )

    def _relaxed(self) -> Lane:
        if self.ceiling >= self.max_events:
            return self
        if self.sends_at_ceiling < RELAX_AFTER_SENDS:
            return replace(self, sends_at_ceiling=self.sends_at_ceiling + 1)
        return replace(self, ceiling=min(self.max_events, self.ceiling * 2), sends_at_ceiling=0)

    def _refused(self, suspect: int | None, now: float, jitter: float) -> Lane:
        refused = self.refused if suspect is None else self.refused | {suspect}
        if len(refused) < REFUSALS_IN_A_ROW:
            return replace(self, refused=refused)
        wait = self._backoff(self.failures, jitter)
        lane = self._close(LaneState.CLOSED, "every event is refused", now + wait)
        return replace(lane, refused=refused)

    def _close(self, state: LaneState, reason: str, reopens_at: float) -> Lane:
        return replace(
            self,
            state=state,
            reason=reason,
            window=1,
            failures=self.failures + 1,
            reopens_at=reopens_at,
            epoch=self.epoch + 1,
            passing=False,
            accused=None,
        )

    @staticmethod
    def _backoff(failures: int, jitter: float) -> float:
        """Exponential with full jitter.

        >>> [Lane._backoff(failures, 0.5) for failures in (0, 1, 2, 20)]
        [0.125, 0.25, 0.5, 2.5]
        """
        cap = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * float(1 << min(failures, 16)))
        return max(MIN_BACKOFF_SECONDS, cap * jitter)
