"""Which events failed alone, and which of them are confirmed to be the cause. Pure.

An event is confirmed bad when it fails alone and another passes before and after. Only a confirmed
event's failures count against it. The ledger is kept in memory: after a restart an event is tried
more often, never less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

_MAX_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class IsolationLedger:
    """Events by their seq.

    `failed_alone` failed since something passed. `confirmed_bad` failed while others passed before
    and after. `refusals` counts the verdicts on an event. `asked_for_time` were in the request
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
        """Inngest judged `seq` bad; a confirmation stays."""
        if seq in self.confirmed_bad:
            return self
        return replace(self, failed_alone=self.failed_alone | {seq})

    def with_refusal(self, seq: int) -> IsolationLedger:
        """A verdict on `seq` was counted."""
        refusals = {**self.refusals, seq: self.refusals.get(seq, 0) + 1}
        return replace(self, refusals=refusals if len(refusals) < _MAX_EVENTS else {})

    def with_pass(self, now: float, healed: int | None) -> IsolationLedger:
        """Something passed; `healed` is the isolated event that passed alone, None for others.

        An isolated event that passes shows that failing alone may be chance, so nothing is
        confirmed by it.
        """
        if healed is not None:
            return replace(self, failed_alone=frozenset(), confirmed_bad=frozenset(), found_at=None)
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
        """`seq` was too large, and less passes."""
        return replace(
            self,
            failed_alone=self.failed_alone - {seq},
            confirmed_bad=self.confirmed_bad | {seq},
        )

    def with_trouble(
        self, asked_for_time: frozenset[int], *, shared: bool, lasts: bool
    ) -> IsolationLedger:
        """It was Inngest's trouble.

        Where it is `shared` by events that were not isolated, failing alone says nothing about an
        event. Where it `lasts`, a Retry-After is believed again.
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
