"""The delivery breaker: may I send now, how much, when next? Pure.

::

                 trouble is proven                   a probe fails
    healthy ────────────────────> backing_off  <──────────────────┐
     ^  ^                           │    ^  └────────────────────>┘
     │  │ nothing is waiting        │    │ trouble is proven
     │  ├───────────────────────────┤    │
     │  │                           v    │ a probe passes
     │  └────────────────────── recovering
     └── full batches pass          (misconfigured is like backing_off, with a fixed pause)

The breaker judges Inngest, never an event. While other requests pass, an event may be the cause of
a failure, so only failures in a row trip the breaker. Only answers to requests sent after the last
change move it (`epoch`), so requests that fail together count as one failure. Times are seconds of
the caller's monotonic clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from inngest_outbox.outbox.model import Isolated
from inngest_outbox.relay.breaker_policy import BreakerPolicy
from inngest_outbox.relay.evidence import BatchLimit, FailureStreak, IsolationLedger
from inngest_outbox.relay.sends import BreakerState, InFlight, Permit

_STEADY_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of the breaker.

    `refusing` says that it waits because Inngest refuses every event, `widened` that a round has
    more than one probe. `failures` counts the trip and the failed rounds of probes since,
    `probes_left` the probes that this round may still begin, `reopens_at` is when it may begin.
    `trouble_epoch` is the epoch in which the trouble began.
    `provisional` says that a single failure tripped it, before any request had passed.
    `isolated_turn` says that isolated events come before others next. While `narrow`, events go
    alone, since some hang; `narrow_until` is when that may end. `passed_at` is when a request last
    passed. `refused_at` is when the refusals of every event began, None while something passes;
    until `witnessed_until` Inngest is known to be well without a pass.
    """

    policy: BreakerPolicy
    senders: int
    limit: BatchLimit
    streak: FailureStreak = field(default_factory=FailureStreak)
    ledger: IsolationLedger = field(default_factory=IsolationLedger)
    state: BreakerState = BreakerState.HEALTHY
    reason: str = ""
    refusing: bool = False
    widened: bool = False
    failures: int = 0
    probes_left: int = 1
    reopens_at: float = 0.0
    epoch: int = 0
    trouble_epoch: int = 0
    provisional: bool = False
    paused: bool = False
    isolated_turn: bool = True
    narrow: bool = False
    narrow_until: float = 0.0
    passed_at: float = -math.inf
    refused_at: float | None = None
    witnessed_until: float = -math.inf

    @classmethod
    def fresh(
        cls, max_events: int, max_bytes: int, senders: int, policy: BreakerPolicy | None = None
    ) -> Breaker:
        """A healthy breaker at full width."""
        return cls(policy or BreakerPolicy(), senders, BatchLimit.full(max_events, max_bytes))

    def wait_seconds(self, now: float, sends: InFlight) -> float | None:
        """Seconds until a permit is available. None: only after an answer or a command.

        Events that failed before use senders of their own, so an event that hangs blocks no other.
        """
        if self.paused or sends.isolated > self.senders * self.policy.resends_per_sender:
            return None
        if self.state is BreakerState.HEALTHY or (self.narrow and not self.state.waits):
            return 0.0 if sends.others < self.width else None
        if self.state is BreakerState.RECOVERING:
            return None if sends.others_now else 0.0
        probing = sends.others if self.narrow else sends.others_now + sends.isolated_now
        if probing >= self.width or (probing and not self.probes_left):
            return None
        return max(0.0, self.reopens_at - now)

    @property
    def width(self) -> int:
        """The number of requests with events that are not isolated that may be in flight."""
        return self.policy.narrow_senders if self.narrow else self.senders

    def permit(self, sends: InFlight) -> Permit:
        """The next permit."""
        isolated = self._isolated(sends)
        size = self.limit.size
        if self.state.waits:
            # Every second time the newest event is the probe, because older ones may be the cause.
            turn = self.failures + (self.probes_left if self.widened else 0)
            newest = float(turn % 2)
            return Permit(1, size, isolated, newest, self.epoch, self.state, singly=self.narrow)
        recovering = self.state is BreakerState.RECOVERING
        policy = self.policy
        share = policy.recovering_fresh_share if recovering else policy.fresh_share
        events = max(1, self.width - sends.others) if self.narrow else self.limit.events
        return Permit(events, size, isolated, share, self.epoch, self.state, singly=self.narrow)

    def is_current(self, permit: Permit) -> bool:
        """True while a request may be sent under `permit`."""
        return permit.epoch == self.epoch and not self.paused

    def began(self, *, isolated: bool) -> Breaker:
        """Note that a batch is about to be sent. Isolated events and others take turns."""
        left = max(0, self.probes_left - 1) if self.state.waits else self.probes_left
        return replace(self, isolated_turn=not isolated, probes_left=left)

    def with_idle(self) -> Breaker:
        """The breaker becomes healthy: nothing is waiting, so no backlog could overload Inngest."""
        return replace(
            self,
            state=BreakerState.HEALTHY,
            reason="",
            refusing=False,
            limit=self.limit.with_events(self.limit.max_events),
            failures=0,
            narrow=False,
        )

    def with_hung(self, now: float, seconds: float) -> Breaker:
        """A request got no answer in `seconds` while others pass: events go alone for a while."""
        until = now + max(self.policy.narrow, 2 * seconds)
        return replace(self, narrow=True, narrow_until=until)

    def passes(self, now: float) -> bool:
        """True when a request passed lately, whatever trouble there has been since."""
        return now - self.passed_at < self.policy.bad_memory

    def wants_witness(self, now: float) -> bool:
        """True when every event has been refused for so long that Inngest itself is in question."""
        began_at = self.refused_at
        return self.refusing and began_at is not None and now - began_at >= self.policy.patience

    def with_witness(self, now: float) -> Breaker:
        """The breaker after Inngest answered an empty request: for a while refusals count."""
        return replace(
            self,
            state=BreakerState.RECOVERING,
            refusing=False,
            failures=0,
            reopens_at=0.0,
            epoch=self.epoch + 1,
            witnessed_until=now + self.policy.witness,
        )

    def with_pause(self, *, paused: bool) -> Breaker:
        """The breaker with the pause on or off; its state stays."""
        return replace(self, paused=paused)

    def resumed(self, state: BreakerState, *, reason: str, reopens_at: float) -> Breaker:
        """The breaker after a restart in trouble: it probes with one event at `reopens_at`."""
        waiting = BreakerState.BACKING_OFF if state is BreakerState.RECOVERING else state
        return self.with_wait(waiting, reason, reopens_at)

    def with_wait(
        self,
        state: BreakerState,
        reason: str,
        reopens_at: float,
        *,
        probes: int = 1,
        refusing: bool = False,
        shared: bool = True,
        provisional: bool = False,
        asked_for_time: frozenset[int] = frozenset(),
        refused_at: float | None = None,
    ) -> Breaker:
        """The breaker in trouble: it sends nothing before `reopens_at`, then `probes` events.

        `shared` says that events failed which were not isolated before.
        """
        epoch = self.epoch + 1
        return replace(
            self,
            state=state,
            widened=probes > 1,
            reason=reason,
            refusing=refusing,
            limit=self.limit.with_events(1),
            streak=FailureStreak(),
            ledger=self.ledger.with_trouble(asked_for_time, shared=shared, lasts=self.state.waits),
            failures=self.failures + 1,
            probes_left=probes,
            reopens_at=reopens_at,
            provisional=provisional,
            refused_at=refused_at,
            epoch=epoch,
            trouble_epoch=self.trouble_epoch if self.state.waits else epoch,
        )

    def forget(self, seq: int) -> Breaker:
        """Forget a settled event."""
        return replace(self, ledger=self.ledger.without(seq))

    def asking_at(self, at: float) -> Breaker:
        """Probe at `at` at the latest."""
        return replace(self, reopens_at=min(self.reopens_at, at))

    def _isolated(self, sends: InFlight) -> Isolated:
        if self.state.waits:
            # In a long outage the same few events are the probes, so that no others get isolated.
            # Every second probe is another event, since the isolated ones may be the cause.
            steady = self.failures >= _STEADY_FAILURES and not (self.refusing or self.widened)
            return Isolated.LAST if not steady or self.failures % 2 else Isolated.FIRST
        bad_events = self.ledger.found_at is not None
        careful = self.state is BreakerState.RECOVERING or bool(self.ledger.failed_alone)
        if sends.isolated >= (1 if careful and not bad_events else self.senders):
            return Isolated.NONE
        healthy = self.state is BreakerState.HEALTHY
        return Isolated.FIRST if self.isolated_turn and (healthy or bad_events) else Isolated.LAST
