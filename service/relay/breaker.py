"""The delivery breaker: may I send now, how much, when next? Pure.

::

               trouble                      time is up, one event
    open ───────────────────> closed  <──────────────────────────┐
     ^  ^ window full again,    │ the event passes               │ trouble
     │  │ or nothing more due   v                                │
     │  └─────────────────── recovering ─────────────────────────┘
     │
     └── (through recovering) ── misconfigured: like closed, every 5 s

The breaker judges Inngest, never an event. Only answers to sends that began after the last trouble
move it (`epoch`), so that four sends which fail together are one trouble. Trouble with a suspect
alone, while others pass, closes nothing. Times are seconds of one monotonic clock of the caller's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from service.outbox.model import Isolated

FIRST_BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 5.0
MIN_BACKOFF_SECONDS = 0.02
MAX_RETRY_AFTER_SECONDS = 300.0
MISCONFIGURED_SECONDS = 5.0
FRESH_SHARE = 0.2
IN_A_ROW = 8
RELAX_AFTER_SENDS = 200
_STEADY_FAILURES = 3


class BreakerState(enum.StrEnum):
    """What the breaker knows about Inngest."""

    HEALTHY = "healthy"
    RECOVERING = "recovering"
    BACKING_OFF = "backing_off"
    MISCONFIGURED = "misconfigured"


_WAITING = frozenset({BreakerState.BACKING_OFF, BreakerState.MISCONFIGURED})


class Signal(enum.StrEnum):
    """What one answer says about Inngest itself.

    `BUSY` is trouble that can't be an event's own: not reached, or it asks for time.
    """

    PASSED = "passed"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    TROUBLE = "trouble"
    BUSY = "busy"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one batch of at most `max_events` and `max_bytes`, begun in `epoch`.

    `fresh_share` of it are the newest events.
    """

    max_events: int
    max_bytes: int
    isolated: Isolated
    fresh_share: float
    epoch: int
    state: BreakerState


@dataclass(frozen=True, slots=True)
class InFlight:
    """How many sends are under way: of suspects, of others, and of each those of this epoch."""

    isolated: int = 0
    others: int = 0
    isolated_now: int = 0
    others_now: int = 0


@dataclass(frozen=True, slots=True)
class Breaker:
    """The breaker's whole memory.

    `window` is the batch size now allowed, `max_bytes` what was not too large for Inngest,
    `max_events` and `all_bytes` the configured limits. `failures` are troubles in a row, `refused`
    the events that were refused, nothing having passed since. `accused` are suspects that met
    trouble while others passed before; they are `convicted` when another passes after.
    """

    max_events: int
    all_bytes: int
    senders: int
    state: BreakerState = BreakerState.HEALTHY
    reason: str = ""
    window: int = 0
    max_bytes: int = 0
    sends_below_limit: int = 0
    failures: int = 0
    reopens_at: float = 0.0
    epoch: int = 0
    paused: bool = False
    suspect_turn: bool = True
    passing: bool = False
    refused: frozenset[int] = frozenset()
    accused: frozenset[int] = frozenset()
    convicted: frozenset[int] = frozenset()

    @classmethod
    def fresh(cls, max_events: int, max_bytes: int, senders: int) -> Breaker:
        """An open breaker at full width."""
        return cls(max_events, max_bytes, senders, window=max_events, max_bytes=max_bytes)

    def wait_seconds(self, now: float, sends: InFlight) -> float | None:
        """How long until a permit can be had: 0 now, None not before an answer or a command.

        A suspect takes no sender from the others, so that one which hangs holds back nobody.
        """
        if self.paused:
            return None
        if self.state is BreakerState.HEALTHY:
            return 0.0 if sends.others < self.senders else None
        if self.state is BreakerState.RECOVERING:
            return None if sends.others_now else 0.0
        if sends.others_now or sends.isolated_now:
            return None
        return max(0.0, self.reopens_at - now)

    def permit(self, sends: InFlight) -> Permit:
        """The permit that is due."""
        window, fresh_share = self.window, FRESH_SHARE
        if self.state in _WAITING:
            # Every other time, and first after a run of refusals, the newest asks: what came
            # before it may be the cause.
            window, fresh_share = 1, float(self.failures % 2 == self.refusing)
        isolated = self._suspects(sends)
        return Permit(window, self.max_bytes, isolated, fresh_share, self.epoch, self.state)

    def holds(self, permit: Permit) -> bool:
        """Whether a send may still begin under `permit`."""
        return permit.epoch == self.epoch and not self.paused

    def began(self, *, isolated: bool) -> Breaker:
        """A send has begun; suspects and other events take turns."""
        return replace(self, suspect_turn=not isolated)

    def _suspects(self, sends: InFlight) -> Isolated:
        if self.state in _WAITING:
            # In a long outage the same few events ask again, so that no others become suspects,
            # and every other time an event that is none, since the suspects may be the cause.
            steady = self.failures >= _STEADY_FAILURES and not self.refused
            return Isolated.FIRST if steady and self.failures % 2 else Isolated.LAST
        at_once = 1 if self.accused or self.state is BreakerState.RECOVERING else self.senders
        if sends.isolated >= at_once:
            return Isolated.NONE
        first = self.state is BreakerState.HEALTHY and self.suspect_turn
        return Isolated.FIRST if first else Isolated.LAST

    def after(
        self,
        signal: Signal,
        *,
        permit: Permit,
        now: float,
        jitter: float,
        reason: str = "",
        sent_bytes: int = 1,
        drained: bool = False,
        retry_after_seconds: float | None = None,
        suspect: int | None = None,
        newly_refused: int | None = None,
    ) -> Breaker:
        """The breaker after an answer to a send under `permit`.

        `suspect` is the seq of a known suspect that was sent alone, `newly_refused` that of an
        event which became one. `drained`: the send took all that was due. `jitter` is in [0, 1).
        """
        if signal is Signal.TOO_LARGE:
            return replace(self, max_bytes=max(1, sent_bytes // 2), sends_below_limit=0)
        if signal is Signal.PASSED:
            return self._passed(permit, suspect, drained=drained)
        asked = min(retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS)
        if permit.epoch != self.epoch:
            late = self.state is BreakerState.BACKING_OFF and signal is Signal.BUSY
            return replace(self, reopens_at=max(self.reopens_at, now + asked)) if late else self
        if suspect is not None and self.may_blame(signal, suspect, permit):
            return replace(self, passing=False, accused=self.accused | {suspect})
        backoff = self._backoff(self.failures, jitter)
        if signal is Signal.REFUSED:
            return self._refused(newly_refused, now, backoff)
        state, wait = BreakerState.BACKING_OFF, max(backoff, asked)
        if signal is Signal.MISCONFIGURED:
            state, wait = BreakerState.MISCONFIGURED, MISCONFIGURED_SECONDS
        return self._close(state, reason, now + wait)

    def may_blame(self, signal: Signal, suspect: int | None, permit: Permit) -> bool:
        """Whether trouble with `suspect` alone may be its own: others passed before.

        So many suspects in trouble, and nothing that passed in between, are Inngest's trouble.
        """
        return (
            signal is Signal.TROUBLE
            and suspect is not None
            and permit.epoch == self.epoch
            and permit.state not in _WAITING
            and (self.passing or bool(self.accused))
            and len(self.accused | {suspect}) < IN_A_ROW
        )

    @property
    def refusing(self) -> bool:
        """Whether Inngest refuses everything, so that a first refusal is no verdict."""
        return len(self.refused) >= IN_A_ROW

    def resumed(self, state: BreakerState, *, reason: str, reopens_at: float) -> Breaker:
        """The breaker after a restart in trouble: one event is sent, not before `reopens_at`."""
        waiting = BreakerState.BACKING_OFF if state is BreakerState.RECOVERING else state
        return replace(self, state=waiting, reason=reason, window=1, reopens_at=reopens_at)

    def asking_at(self, at: float) -> Breaker:
        """A breaker that waits asks not later than `at`: another process's events pass."""
        return replace(self, reopens_at=min(self.reopens_at, at))

    def with_paused(self, *, paused: bool) -> Breaker:
        """Paused by an operator, or not; what is known of Inngest stays."""
        return replace(self, paused=paused)

    def forget(self, seq: int) -> Breaker:
        """A convicted event's trouble has been counted against it."""
        return replace(self, convicted=self.convicted - {seq})

    def _passed(self, permit: Permit, suspect: int | None, *, drained: bool) -> Breaker:
        breaker = replace(
            self._relaxed(),
            passing=True,
            refused=frozenset(),
            accused=frozenset(),
            convicted=self.convicted | (self.accused - {suspect}),
        )
        if permit.epoch != self.epoch:
            return breaker
        window = min(2 if self.state in _WAITING else self.window * 2, self.max_events)
        if drained:  # there is no backlog that could flatten Inngest
            window = self.max_events
        done = window >= self.max_events
        return replace(
            breaker,
            state=BreakerState.HEALTHY if done else BreakerState.RECOVERING,
            window=window,
            failures=0,
            reason="" if done else self.reason,
            reopens_at=0.0,
        )

    def _relaxed(self) -> Breaker:
        if self.max_bytes >= self.all_bytes:
            return self
        if self.sends_below_limit < RELAX_AFTER_SENDS:
            return replace(self, sends_below_limit=self.sends_below_limit + 1)
        wider = min(self.all_bytes, self.max_bytes * 2)
        return replace(self, max_bytes=wider, sends_below_limit=0)

    def _refused(self, newly_refused: int | None, now: float, backoff: float) -> Breaker:
        if newly_refused is None:  # a suspect, of which that is known
            return self
        breaker = replace(self, refused=self.refused | {newly_refused})
        if not breaker.refusing:
            return breaker
        # It may be a run of bad events, so another is tried at once.
        reopens_at = now + backoff if self.failures else now
        return breaker._close(BreakerState.BACKING_OFF, "every event is refused", reopens_at)  # noqa: SLF001

    def _close(self, state: BreakerState, reason: str, reopens_at: float) -> Breaker:
        return replace(
            self,
            state=state,
            reason=reason,
            window=1,
            failures=self.failures + 1,
            reopens_at=reopens_at,
            epoch=self.epoch + 1,
            passing=False,
            accused=frozenset(),
        )

    @staticmethod
    def _backoff(failures: int, jitter: float) -> float:
        """Exponential with full jitter.

        >>> [Breaker._backoff(failures, 0.5) for failures in (0, 1, 2, 20)]
        [0.125, 0.25, 0.5, 2.5]
        """
        cap = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * float(1 << min(failures, 16)))
        return max(MIN_BACKOFF_SECONDS, cap * jitter)
