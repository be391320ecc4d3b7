"""The breaker's limits: for its trips, its waits and its growth after them."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Cause(enum.Enum):
    """The possible cause of a failed round of probes.

    `BAD_EVENTS`: some were found lately. `JUDGED`: Inngest answers and judges events. `INNGEST`: it
    asks for time, refuses the key or can't be reached.
    """

    BAD_EVENTS = enum.auto()
    JUDGED = enum.auto()
    UNKNOWN = enum.auto()
    INNGEST = enum.auto()


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """The knobs of the breaker. Times are seconds.

    Backoff: exponential with full jitter between `first_backoff` and `max_backoff`, never below
    `min_backoff`; up to `max_backoff_among_bad` where events were found to be bad. A Retry-After
    counts up to `max_retry_after`. One event probes earlier: after `trusted_retry_after` if
    requests passed shortly before, else after `blind_retry_after`.
    `misconfigured_wait` is the pause between two tries of a refused configuration.

    Trip: `failures_in_a_row`, or `failures_while_passing` if a request passed in the last
    `evidence` seconds, or two failures over `evidence` seconds.

    Probes: one, or from `first_probes` doubling to `max_probes` where an event was found to be bad
    in the last `bad_memory` seconds: then the next event may be bad too. If none was found, most
    events may still be bad. So rounds grow to `max_blind_probes` after `widen_after` failed rounds,
    or at once to `max_probes` if Inngest judges events. After `widest_rounds` they have one probe.

    Batches: `fresh_share` of a batch are the newest events, `recovering_fresh_share` in recovery.
    A batch shrinks when `shrink_share` of about the last `shrink_sends` sends failed. A size that
    was too large is tried again after `relax_after_sends`. No batch is claimed while more than
    `resends_per_sender` requests for each sender wait to be sent again.

    Hanging: after a request without an answer in time, while others passed in the last `bad_memory`
    seconds, events go alone for `narrow` seconds at least, `narrow_senders` side by side.

    Only refusals: after `patience` seconds in which every event was refused, an empty request that
    Inngest answers is witness that Inngest is well, for `witness` seconds.

    Nothing to send: recovery ends after `idle` seconds. In other trouble an empty request probes
    after `ask_idle` seconds.
    """

    first_backoff: float = 0.25
    max_backoff: float = 5.0
    max_backoff_among_bad: float = 1.0
    min_backoff: float = 0.02
    max_retry_after: float = 300.0
    trusted_retry_after: float = 5.0
    blind_retry_after: float = 15.0
    misconfigured_wait: float = 5.0
    failures_in_a_row: int = 8
    failures_while_passing: int = 32
    evidence: float = 1.0
    first_probes: int = 8
    max_probes: int = 32
    max_blind_probes: int = 16
    bad_memory: float = 60.0
    widen_after: int = 2
    widest_rounds: int = 30
    fresh_share: float = 0.2
    recovering_fresh_share: float = 0.5
    shrink_share: float = 0.75
    shrink_sends: int = 20
    relax_after_sends: int = 200
    resends_per_sender: int = 16
    narrow: float = 10.0
    narrow_senders: int = 32
    patience: float = 300.0
    witness: float = 60.0
    idle: float = 1.0
    ask_idle: float = 6.0

    def backoff_seconds(self, failures: int, jitter: float, cause: Cause = Cause.UNKNOWN) -> float:
        """Seconds to wait after `failures` earlier failures; `jitter` is in [0, 1).

        >>> [BreakerPolicy().backoff_seconds(failures, 0.5) for failures in (0, 1, 2, 20)]
        [0.125, 0.25, 0.5, 2.5]
        """
        judges = cause is Cause.JUDGED and failures < self.widest_rounds
        among_bad = judges or cause is Cause.BAD_EVENTS
        longest = self.max_backoff_among_bad if among_bad else self.max_backoff
        cap = min(longest, self.first_backoff * float(1 << min(failures, 16)))
        return max(self.min_backoff, cap * jitter)

    def retry_after_seconds(self, asked: float, *, passing: bool) -> float:
        """The seconds of a Retry-After that pass before one event probes.

        >>> policy = BreakerPolicy()
        >>> [policy.retry_after_seconds(asked, passing=True) for asked in (3, 60)]
        [3, 5.0]
        >>> [policy.retry_after_seconds(asked, passing=False) for asked in (12, 60)]
        [12, 15.0]
        """
        patience = self.trusted_retry_after if passing else self.blind_retry_after
        return min(asked, patience, self.max_retry_after)

    def probes(self, failures: int, cause: Cause) -> int:
        """The number of events that may probe in one round, after `failures` failed rounds.

        >>> [BreakerPolicy().probes(failures, Cause.BAD_EVENTS) for failures in (0, 1, 5)]
        [8, 16, 32]
        >>> [BreakerPolicy().probes(failures, Cause.UNKNOWN) for failures in (0, 1, 2, 3, 30)]
        [1, 1, 8, 16, 1]
        """
        begin = self.widen_after if cause is Cause.UNKNOWN else 0
        unlikely = cause is not Cause.BAD_EVENTS and failures >= self.widest_rounds
        if cause is Cause.INNGEST or failures < begin or unlikely:
            return 1
        widest = self.max_blind_probes if cause is Cause.UNKNOWN else self.max_probes
        return min(widest, self.first_probes << min(failures - begin, 8))
