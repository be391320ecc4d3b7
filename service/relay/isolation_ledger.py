"""Which events failed alone, and which of them are confirmed to be the cause. Pure.

An event is confirmed bad when it fails alone and others pass before and after. Only then do its
failures count as attempts. The ledger is in memory: after a restart an event is tried more often,
never less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
        """Whether an event was confirmed bad in the last `seconds`."""
        return self.found_at is not None and now - self.found_at < seconds
