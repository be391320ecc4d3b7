"""The limits of a relay."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """How much a relay sends at once, and how long it waits.

    `max_events` and `max_bytes` bound a batch, `senders` the requests in flight.
    `send_timeout_seconds` bounds one request; `drain_seconds` is the time for requests in flight at
    the stop.
    """

    max_events: int
    max_bytes: int
    senders: int
    send_timeout_seconds: float
    drain_seconds: float
