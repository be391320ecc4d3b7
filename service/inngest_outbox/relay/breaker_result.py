"""Applies an answer to the breaker, and derives the breaker's view of the events. Pure.

An answer to a request that was sent before the last change of the state trips nothing. A request
that passed ends the trouble only if it was sent after the trouble began.
"""

from __future__ import annotations

from dataclasses import replace

from inngest_outbox.inngest.send_result import Signal
from inngest_outbox.relay.breaker import Breaker
from inngest_outbox.relay.breaker_policy import Cause
from inngest_outbox.relay.sends import Answered, BreakerState, BreakerView, Permit

_ASKS_FOR_PATIENCE = (Signal.BUSY, Signal.MISCONFIGURED, Signal.UNREACHED)
_REASONS = {
    Signal.REFUSED: "every event is refused",
    Signal.TOO_LARGE: "every event is too large",
}


def with_result(
    breaker: Breaker, answered: Answered, *, permit: Permit, now: float, jitter: float
) -> Breaker:
    """The breaker after an answer to a request under `permit`; `jitter` is in [0, 1)."""
    if answered.signal is Signal.PASSED:
        return _passed(breaker, answered, permit, now)
    if permit.epoch != breaker.epoch:
        return _late(breaker, answered, now)
    if breaker.state.waits:
        return _probe_failed(breaker, answered, now, jitter)
    learned = _learned(breaker, answered, now)
    if answered.hung and breaker.passes(now):
        learned = learned.with_hung(now, now - answered.began_at)
    if _is_trouble(breaker, learned, answered, now):
        return _tripped(learned, answered, now, jitter)
    return learned


def view(
    breaker: Breaker, before: Breaker, permit: Permit, lone: int | None, now: float
) -> BreakerView:
    """The view of a request's events; `before` is the breaker before the answer."""
    moved = permit.epoch != breaker.epoch
    resend = not (moved or breaker.state.waits or breaker.paused)
    return BreakerView(
        resend=resend,
        refusing=breaker.refusing or (moved and breaker.state.waits),
        confirmed_bad=(resend or breaker.refusing) and lone in before.ledger.confirmed_bad,
        refusals=0 if lone is None else before.ledger.refusals.get(lone, 0),
        bad_events=before.ledger.found_lately(now, before.policy.bad_memory),
        narrow=breaker.narrow,
        passed_size=before.limit.passed_size,
    )


def _passed(breaker: Breaker, answered: Answered, permit: Permit, now: float) -> Breaker:
    healed = answered.lone if answered.known_isolated else None
    known = replace(
        breaker,
        ledger=breaker.ledger.with_pass(now, healed),
        narrow=breaker.narrow and now < breaker.narrow_until,
        passed_at=now,
        refused_at=None,
    )
    # A request in flight at the same time passed, so Inngest was not the cause.
    if permit.epoch < breaker.trouble_epoch - breaker.provisional:
        return known
    limit = breaker.limit.with_pass(answered.size, breaker.policy)
    if answered.drained:
        limit = limit.with_events(limit.max_events)
    healthy = breaker.state is BreakerState.HEALTHY or limit.is_full
    return replace(
        known,
        state=BreakerState.HEALTHY if healthy else BreakerState.RECOVERING,
        reason="" if healthy else breaker.reason,
        refusing=False,
        streak=breaker.streak.with_pass(now),
        limit=limit,
        failures=0,
        reopens_at=0.0,
    )


def _late(breaker: Breaker, answered: Answered, now: float) -> Breaker:
    """Apply a late answer: only a Retry-After counts."""
    asked = answered.retry_after_seconds
    if asked is None or breaker.state is not BreakerState.BACKING_OFF:
        return breaker
    wait = breaker.policy.retry_after_seconds(asked, passing=True)
    return replace(breaker, reopens_at=max(breaker.reopens_at, now + wait))


def _probe_failed(breaker: Breaker, answered: Answered, now: float, jitter: float) -> Breaker:
    learned = _learned(breaker, answered, now)
    policy = breaker.policy
    if answered.signal in _REASONS:
        bad = answered.lone in breaker.ledger.confirmed_bad
        answers = not breaker.refusing and not learned.streak.is_refusing(now, policy)
        if bad or answers:
            # Inngest answers about events, so another probe goes at once.
            return learned
    if breaker.probes_left:
        return learned
    return _tripped(learned, answered, now, jitter)


def _learned(breaker: Breaker, answered: Answered, now: float) -> Breaker:
    """Apply a failure to the streak and the ledger."""
    ledger, limit, streak, lone = breaker.ledger, breaker.limit, breaker.streak, answered.lone
    confirmed = lone in ledger.confirmed_bad
    if _counts_in_a_row(breaker, answered, now):
        streak = streak.with_failure(answered.began_at, fresh=not answered.known_isolated)
    if answered.signal is Signal.REFUSED:
        judged = lone if lone is not None else answered.newly_refused
        ledger = ledger if judged is None else ledger.with_judged(judged)
        if lone is not None and (confirmed or not breaker.refusing):
            ledger = ledger.with_refusal(lone)
    elif lone is not None and (answered.failed_before or answered.signal is Signal.TOO_LARGE):
        ledger = ledger.with_failed_alone(lone)
    if confirmed and answered.retry_after_seconds is not None:
        ledger = replace(ledger, distrusts_retry_after=True)
    if answered.signal is Signal.TOO_LARGE:
        limit = limit.without_size_limit() if confirmed else limit.with_too_large(answered.size)
    elif answered.signal is not Signal.REFUSED and not answered.failed_before:
        limit = limit.with_failure(breaker.policy)
    return replace(breaker, ledger=ledger, limit=limit, streak=streak)


def _counts_in_a_row(breaker: Breaker, answered: Answered, now: float) -> bool:
    """True when Inngest may be the cause of the failure, as far as this event shows."""
    if answered.signal is Signal.REFUSED:
        return answered.newly_refused is not None
    if answered.signal is Signal.TOO_LARGE:
        passed_before = answered.size <= breaker.limit.passed_size
        return not answered.known_isolated and (passed_before or answered.lone is not None)
    if answered.hung and answered.known_isolated and breaker.passes(now):
        return False
    if not answered.known_isolated:
        return True
    return not breaker.ledger.found_lately(now, breaker.policy.bad_memory)


def _is_trouble(before: Breaker, learned: Breaker, answered: Answered, now: float) -> bool:
    policy = before.policy
    if answered.signal in _REASONS:
        return now >= before.witnessed_until and learned.streak.is_refusing(now, policy)
    if answered.hung and before.passes(now):
        return learned.streak.count >= policy.narrow_senders
    if not before.streak.passing:
        return True
    if answered.retry_after_seconds is not None and not answered.failed_before:
        seen = answered.seqs & before.ledger.asked_for_time
        if not seen and not before.ledger.distrusts_retry_after:
            return True
    counted = learned.streak.count > before.streak.count
    return counted and learned.streak.is_trouble(now, policy)


def _tripped(breaker: Breaker, answered: Answered, now: float, jitter: float) -> Breaker:
    """Wait, then probe; the wait grows with every failed round."""
    policy, signal, asked = breaker.policy, answered.signal, answered.retry_after_seconds
    if breaker.state is BreakerState.RECOVERING:
        # Some pass and most fail, again and again: it may be the events.
        breaker = replace(breaker, ledger=replace(breaker.ledger, found_at=now))
    cause = _cause(breaker, answered, now)
    wait = policy.backoff_seconds(breaker.failures, jitter, cause)
    if signal is Signal.REFUSED and not breaker.failures:
        wait = 0.0  # it may be a run of bad events
    if asked is not None:
        passing = breaker.streak.passing
        wait = max(wait, policy.retry_after_seconds(asked, passing=passing))
    state = BreakerState.BACKING_OFF
    if signal is Signal.MISCONFIGURED:
        state, wait = BreakerState.MISCONFIGURED, policy.misconfigured_wait
    narrow = breaker.narrow and breaker.passes(now)
    refusing = signal in _REASONS
    return replace(breaker, narrow=narrow).with_wait(
        state,
        _REASONS.get(signal, answered.reason),
        now + wait,
        probes=policy.narrow_senders if narrow else policy.probes(breaker.failures, cause),
        refusing=refusing,
        refused_at=(breaker.refused_at or now) if refusing else None,
        provisional=not breaker.state.waits and asked is None and breaker.streak.count <= 1,
        shared=signal not in _REASONS and breaker.streak.fresh > 0,
        asked_for_time=answered.seqs if asked is not None else frozenset(),
    )


def _cause(breaker: Breaker, answered: Answered, now: float) -> Cause:
    if breaker.ledger.found_lately(now, breaker.policy.bad_memory):
        return Cause.BAD_EVENTS
    if answered.signal in _REASONS:
        return Cause.JUDGED
    return Cause.INNGEST if answered.signal in _ASKS_FOR_PATIENCE else Cause.UNKNOWN
