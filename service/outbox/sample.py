"""A minute of an outbox in figures."""

from __future__ import annotations

import msgspec

KEPT_MS = 7 * 86_400_000  # as long as delivered rows by default: the charts and stories of events
MINUTE_MS = 60_000


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One minute, which begins at `at_ms` (whole minutes since 1970).

    `waiting` is the most events that were not settled. Rates are events per second. `state` is the
    worst state of delivery as people see it, `reason` its reason.
    """

    at_ms: int
    waiting: int
    dead: int
    accepted_rate: float
    delivered_rate: float
    state: str
    reason: str
