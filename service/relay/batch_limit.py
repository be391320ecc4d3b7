"""The limit of a batch: slow start, shrinking under failures, the largest size that passes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from service.relay.breaker_policy import BreakerPolicy


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
        """Whether a batch may have all the configured events."""
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
