"""Counts failures in a row and decides when they prove trouble. Pure.

An event may be the cause of a failure, so a failure proves nothing while other requests pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from service.relay.breaker_policy import BreakerPolicy


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
        """Whether a request has passed since the last trouble."""
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
        """Whether so many events in a row were refused that Inngest is the cause."""
        return self.count >= self._limit(now, policy)

    def is_trouble(self, now: float, policy: BreakerPolicy) -> bool:
        """Whether Inngest is the cause of the failures, not an event."""
        if self.passed_at is None or self.count >= self._limit(now, policy):
            return True
        quiet = now - max(self.passed_at, self.began_at)
        return self.count > 1 and quiet >= policy.evidence

    def _limit(self, now: float, policy: BreakerPolicy) -> int:
        lately = self.passed_at is not None and now - self.passed_at < policy.evidence
        return policy.failures_while_passing if lately else policy.failures_in_a_row
