"""The evidence of the breaker: sizes that pass, failures in a row, suspected events. Pure.

An event may be the cause of a failure, so a failure proves nothing about Inngest while other
requests pass. An event is confirmed bad when it fails alone and others pass before and after. Only
then do its failures count as attempts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from inngest_outbox.relay.breaker_policy import BreakerPolicy


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """The limits of the next batch.

    `events` and `size` are allowed now, `max_events` and `max_size` at most; sizes are bytes.
    `failing` is the approximate share of recent sends that failed. `passed_size` is the largest
    request that ever passed, 0 before the first. `sends_below` counts the requests that passed
    since `size` last changed and is below `max_size`.
    """

    max_events: int
    max_size: int
    events: int
    size: int
    failing: float = 0.0
    sends_below: int = 0
    passed_size: int = 0

    @classmethod
    def full(cls, max_events: int, max_size: int) -> BatchLimit:
        """The configured limits."""
        return cls(max_events, max_size, events=max_events, size=max_size)

    @property
    def is_full(self) -> bool:
        """True when a batch may have all the configured events."""
        return self.events >= self.max_events

    def with_events(self, events: int) -> BatchLimit:
        """The limit with at most `events` events."""
        return replace(self, events=max(1, min(events, self.max_events)))

    def with_pass(self, size: int, policy: BreakerPolicy) -> BatchLimit:
        """A request of `size` passed: the next batch may have twice the events."""
        grown = replace(
            self.with_events(self.events * 2),
            failing=self.failing * (1 - 1 / policy.shrink_sends),
            passed_size=max(self.passed_size, size),
        )
        if self.size >= self.max_size:
            return grown
        if self.sends_below < policy.relax_after_sends:
            return replace(grown, sends_below=self.sends_below + 1)
        return replace(grown, size=min(self.max_size, self.size * 2), sends_below=0)

    def with_failure(self, policy: BreakerPolicy) -> BatchLimit:
        """A batch failed: half the events if most of the last batches failed."""
        weight = 1 / policy.shrink_sends
        failing = self.failing * (1 - weight) + weight
        if failing < policy.shrink_share:
            return replace(self, failing=failing)
        return replace(self.with_events(self.events // 2), failing=failing / 2)

    def with_too_large(self, size: int) -> BatchLimit:
        """A request of `size` was too large."""
        return replace(self, size=max(1, min(self.size, size // 2)), sends_below=0)

    def without_size_limit(self) -> BatchLimit:
        """One event was too large, not the batch."""
        return replace(self, size=self.max_size)


@dataclass(frozen=True, slots=True)
class FailureStreak:
    """The failures since something passed.

    `count` is how many requests failed, `fresh` how many of them had events that were not isolated
    before, `began_at` when the first was sent, infinite when none failed. `passed_at` is when a
    request last passed, None when none has since the start or the last trouble.
    """

    count: int = 0
    fresh: int = 0
    began_at: float = math.inf
    passed_at: float | None = None

    @property
    def passing(self) -> bool:
        """True once a request has passed since the last trouble."""
        return self.passed_at is not None

    def with_pass(self, now: float) -> FailureStreak:
        """A request passed."""
        return FailureStreak(passed_at=now)

    def with_failure(self, began_at: float, *, fresh: bool) -> FailureStreak:
        """A request that was sent at `began_at` failed."""
        return replace(
            self,
            count=self.count + 1,
            fresh=self.fresh + fresh,
            began_at=min(self.began_at, began_at),
        )

    def is_refusing(self, now: float, policy: BreakerPolicy) -> bool:
        """True when so many events in a row were refused that Inngest is the cause."""
        return self.count >= self._limit(now, policy)

    def is_trouble(self, now: float, policy: BreakerPolicy) -> bool:
        """True when Inngest is the cause of the failures, not an event."""
        if self.passed_at is None or self.count >= self._limit(now, policy):
            return True
        quiet = now - max(self.passed_at, self.began_at)
        return self.count > 1 and quiet >= policy.evidence

    def _limit(self, now: float, policy: BreakerPolicy) -> int:
        lately = self.passed_at is not None and now - self.passed_at < policy.evidence
        return policy.failures_while_passing if lately else policy.failures_in_a_row


_MAX_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class IsolationLedger:
    """Events by their seq.

    `failed_alone` failed since a request passed. `confirmed_bad` failed while others passed before
    and after. `refusals` counts how often each was refused. `asked_for_time` were in the request
    whose answer last tripped the breaker with a Retry-After. `found_at` is when an event was last
    confirmed; `distrusts_retry_after` says that one with a Retry-After was.
    """

    failed_alone: frozenset[int] = frozenset()
    confirmed_bad: frozenset[int] = frozenset()
    refusals: Mapping[int, int] = field(default_factory=dict)
    asked_for_time: frozenset[int] = frozenset()
    found_at: float | None = None
    distrusts_retry_after: bool = False

    def with_failed_alone(self, seq: int) -> IsolationLedger:
        """`seq` failed alone. It has to be confirmed again."""
        return replace(
            self,
            failed_alone=self.failed_alone | {seq},
            confirmed_bad=self.confirmed_bad - {seq},
        )

    def with_judged(self, seq: int) -> IsolationLedger:
        """Inngest refused `seq`; a confirmation stays."""
        if seq in self.confirmed_bad:
            return self
        return replace(self, failed_alone=self.failed_alone | {seq})

    def with_refusal(self, seq: int) -> IsolationLedger:
        """A refusal of `seq` was counted."""
        refusals = {**self.refusals, seq: self.refusals.get(seq, 0) + 1}
        return replace(self, refusals=refusals if len(refusals) < _MAX_EVENTS else {})

    def with_pass(self, now: float, healed: int | None) -> IsolationLedger:
        """A request passed; `healed` is the isolated event that passed alone, None for others.

        An isolated event that passes shows that a failure alone may be chance, so it confirms
        nothing. If Inngest loses it, it has all its tries again.
        """
        if healed is not None:
            left = self.without(healed)
            return replace(left, failed_alone=frozenset(), confirmed_bad=frozenset(), found_at=None)
        if not self.failed_alone:
            return self
        bad = self.confirmed_bad | self.failed_alone
        return replace(
            self,
            failed_alone=frozenset(),
            confirmed_bad=bad if len(bad) < _MAX_EVENTS else self.failed_alone,
            found_at=now,
        )

    def with_smaller_pass(self, seq: int) -> IsolationLedger:
        """`seq` was too large, and a smaller request passes."""
        return replace(
            self,
            failed_alone=self.failed_alone - {seq},
            confirmed_bad=self.confirmed_bad | {seq},
        )

    def with_trouble(
        self, asked_for_time: frozenset[int], *, shared: bool, lasts: bool
    ) -> IsolationLedger:
        """Inngest was the cause.

        When events that were not isolated `shared` the trouble, a failure alone proves nothing
        about an event. When it `lasts`, a Retry-After is trusted again.
        """
        return replace(
            self,
            failed_alone=frozenset() if shared else self.failed_alone,
            asked_for_time=asked_for_time or self.asked_for_time,
            distrusts_retry_after=self.distrusts_retry_after and not lasts,
        )

    def without(self, seq: int) -> IsolationLedger:
        """Forget `seq`, which is settled."""
        refusals = {other: count for other, count in self.refusals.items() if other != seq}
        return replace(
            self,
            failed_alone=self.failed_alone - {seq},
            confirmed_bad=self.confirmed_bad - {seq},
            refusals=refusals,
        )

    def found_lately(self, now: float, seconds: float) -> bool:
        """True when an event was confirmed bad in the last `seconds`."""
        return self.found_at is not None and now - self.found_at < seconds
