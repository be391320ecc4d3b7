"""When the breaker trips, how long it waits, and how it grows again."""

from __future__ import annotations

from dataclasses import dataclass


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
    in the last `bad_memory` seconds: then the next event may be bad too.

    Batches: `fresh_share` of a batch are the newest events, `recovering_fresh_share` in recovery.
    A batch shrinks when `shrink_share` of about the last `shrink_sends` sends failed. A size that
    was too large is tried again after `relax_after_sends`. No batch is claimed while more than
    `resends_per_sender` requests for each sender wait to be sent again.

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
    first_probes: int = 4
    max_probes: int = 16
    bad_memory: float = 60.0
    fresh_share: float = 0.2
    recovering_fresh_share: float = 0.5
    shrink_share: float = 0.75
    shrink_sends: int = 20
    relax_after_sends: int = 200
    resends_per_sender: int = 16
    idle: float = 1.0
    ask_idle: float = 6.0

    def backoff_seconds(self, failures: int, jitter: float, *, bad_events: bool = False) -> float:
        """Seconds to wait after `failures` earlier failures; `jitter` is in [0, 1).

        >>> [BreakerPolicy().backoff_seconds(failures, 0.5) for failures in (0, 1, 2, 20)]
        [0.125, 0.25, 0.5, 2.5]
        """
        longest = self.max_backoff_among_bad if bad_events else self.max_backoff
        cap = min(longest, self.first_backoff * float(1 << min(failures, 16)))
        return max(self.min_backoff, cap * jitter)

    def retry_after_seconds(self, asked: float, *, passing: bool) -> float:
        """How many seconds of a Retry-After pass before one event probes.

        >>> policy = BreakerPolicy()
        >>> [policy.retry_after_seconds(asked, passing=True) for asked in (3, 60)]
        [3, 5.0]
        >>> [policy.retry_after_seconds(asked, passing=False) for asked in (12, 60)]
        [12, 15.0]
        """
        patience = self.trusted_retry_after if passing else self.blind_retry_after
        return min(asked, patience, self.max_retry_after)

    def probes(self, failures: int, *, bad_events: bool) -> int:
        """How many events may probe in one round, after `failures` failed rounds.

        >>> [BreakerPolicy().probes(failures, bad_events=True) for failures in (0, 1, 5)]
        [4, 8, 16]
        """
        if not bad_events:
            return 1
        return min(self.max_probes, self.first_probes << min(failures, 8))
