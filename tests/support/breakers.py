"""A breaker in a few words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from service.inngest.send_result import Signal
from service.relay.breaker import Breaker
from service.relay.breaker_result import with_result
from service.relay.sends import Answered, InFlight

IDLE = InFlight()


def fresh(*, senders: int = 4) -> Breaker:
    return Breaker.fresh(500, 1 << 20, senders)


def after(breaker: Breaker, signal: Signal, now: float = 0.0, **answer: object) -> Breaker:
    answered = replace(Answered(signal, now), **answer)
    return with_result(breaker, answered, permit=breaker.permit(IDLE), now=now, jitter=0.5)


def passed(breaker: Breaker, now: float = 0.0, **answer: object) -> Breaker:
    return after(breaker, Signal.PASSED, now, **answer)


def knowing(breaker: Breaker, **known: Any) -> Breaker:
    """The breaker with this in its ledger."""
    return replace(breaker, ledger=replace(breaker.ledger, **known))
