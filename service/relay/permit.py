"""Values between the breaker and the sends."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from service.inngest.send_result import Signal
from service.outbox.model import Isolated


class BreakerState(enum.StrEnum):
    """What the breaker knows about Inngest."""

    HEALTHY = "healthy"
    RECOVERING = "recovering"
    BACKING_OFF = "backing_off"
    MISCONFIGURED = "misconfigured"

    @property
    def waits(self) -> bool:
        """Whether only probes are sent."""
        return self in (BreakerState.BACKING_OFF, BreakerState.MISCONFIGURED)


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to send one batch of at most `max_events` and `max_bytes`, given in `epoch`.

    `fresh_share` of it are the newest events.
    """

    max_events: int
    max_bytes: int
    isolated: Isolated
    fresh_share: float
    epoch: int
    state: BreakerState


@dataclass(frozen=True, slots=True)
class InFlight:
    """How many requests are in flight or about to be.

    `isolated` counts those of isolated events and of parts that failed before, `others` the rest.
    The `_now` figures count those of the current epoch.
    """

    isolated: int = 0
    others: int = 0
    isolated_now: int = 0
    others_now: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one request, as the breaker sees it.

    `began_at` is when it was sent, `size` its bytes. `lone` is the seq of an event that was sent
    alone, `known_isolated` whether it was isolated before. `again` says that the request is a part
    of one that failed. `newly_refused` is an event that was refused for the first time.
    `drained` says that the batch had room for more. `seqs` are the events, where they matter.
    """

    signal: Signal
    began_at: float
    size: int = 1
    reason: str = ""
    retry_after_seconds: float | None = None
    lone: int | None = None
    known_isolated: bool = False
    again: bool = False
    newly_refused: int | None = None
    drained: bool = False
    seqs: frozenset[int] = frozenset()

    @property
    def failed_before(self) -> bool:
        """Whether these events failed before."""
        return self.known_isolated or self.again


@dataclass(frozen=True, slots=True)
class BreakerView:
    """The breaker's view of the events of one answered request.

    `resend`: others pass, so failed parts are sent again at once. `refusing`: every event is
    refused, so no refusal counts. `confirmed_bad`: the event was the cause of its last failure.
    `refusals` counts its earlier refusals. `bad_events`: some were confirmed bad lately.
    `passed_size` is the largest request that passes, in bytes, 0 when none is known.
    """

    resend: bool = True
    refusing: bool = False
    confirmed_bad: bool = False
    refusals: int = 0
    bad_events: bool = False
    passed_size: int = 0
