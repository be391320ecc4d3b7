"""How often and how soon failed events are sent again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The knobs of `outcome`.

    An event that Inngest refuses is sent again after each of `refusal_delays_seconds`, then dead.
    An isolated event that fails is sent again after `isolated_delay_seconds`, doubled each time
    up to `max_isolated_delay_seconds`; after `max_attempts` counted attempts it is dead.

    A request that fails while others pass is sent once more unchanged, if chance may be the cause,
    then in two halves: when half of all requests fail, more parts would fail faster than they
    pass. If its answer took `slow_seconds`, it is sent in `slow_parts` at once.
    """

    refusal_delays_seconds: tuple[float, ...] = (1.0, 3.0)
    isolated_delay_seconds: float = 0.1
    max_isolated_delay_seconds: float = 5.0
    max_attempts: int = 10
    slow_seconds: float = 1.0
    slow_parts: int = 8

    def isolated_delay(self, times: int) -> float:
        """Seconds until an isolated event that was sent so often before is sent again.

        >>> [RetryPolicy().isolated_delay(times) for times in (0, 1, 9)]
        [0.1, 0.2, 5.0]
        """
        doubled = self.isolated_delay_seconds * float(1 << min(times, 16))
        return min(doubled, self.max_isolated_delay_seconds)

    def parts(self, seconds: float, *, chance: bool) -> int:
        """The number of parts for a request that failed after `seconds`; `chance` may be the cause.

        >>> [RetryPolicy().parts(0.1, chance=chance) for chance in (True, False)]
        [1, 2]
        >>> RetryPolicy().parts(10.0, chance=True)
        8
        """
        if seconds >= self.slow_seconds:
            return self.slow_parts
        return 1 if chance else 2
