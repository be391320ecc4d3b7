"""The breaker: whatever was answered, it opens again, and closed it lets one event ask."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from service.outbox.model import Isolated
from service.relay.breaker import (
    IN_A_ROW,
    MAX_RETRY_AFTER_SECONDS,
    Breaker,
    BreakerState,
    InFlight,
    Signal,
)

IDLE = InFlight()
ANSWERS = st.tuples(
    st.sampled_from(list(Signal)),
    st.floats(0, 0.999),  # jitter
    st.none() | st.floats(0, 1e6),  # Retry-After
    st.none() | st.integers(1, 4),  # a suspect
    st.none() | st.integers(1, 20),  # newly refused
    st.integers(1, 1 << 20),  # bytes sent
    st.booleans(),  # drained
    st.integers(0, 2),  # how many answers ago it began
)


def played(answers: list[tuple]) -> tuple[Breaker, float]:
    breaker, now = Breaker.fresh(500, 1 << 20, 4), 0.0
    permits = [breaker.permit(IDLE)]
    for signal, jitter, retry_after, suspect, newly, size, drained, ago in answers:
        now += breaker.wait_seconds(now, IDLE) or 0.0
        permits.append(breaker.permit(IDLE))
        breaker = breaker.after(
            signal,
            permit=permits[max(0, len(permits) - 1 - ago)],
            now=now,
            jitter=jitter,
            reason="why",
            sent_bytes=size,
            drained=drained,
            retry_after_seconds=retry_after,
            suspect=suspect,
            newly_refused=newly,
        )
    return breaker, now


def passed(breaker: Breaker, now: float) -> Breaker:
    return breaker.after(Signal.PASSED, permit=breaker.permit(IDLE), now=now, jitter=0.5)


@given(st.lists(ANSWERS, max_size=40))
def test_it_opens_again_within_ten_good_answers(answers: list[tuple]) -> None:
    breaker, now = played(answers)
    wait = breaker.wait_seconds(now, IDLE)
    assert wait is not None
    assert 0 <= round(wait, 6) <= MAX_RETRY_AFTER_SECONDS
    for _ in range(10):
        breaker = passed(breaker, now)
    assert (breaker.state, breaker.reason, breaker.failures) == (BreakerState.HEALTHY, "", 0)
    assert passed(breaker, now).state is BreakerState.HEALTHY


@given(st.lists(ANSWERS, max_size=40))
def test_a_permit_stays_within_the_limits(answers: list[tuple]) -> None:
    breaker, _ = played(answers)
    permit = breaker.permit(IDLE)
    assert 1 <= permit.max_events <= 500
    assert 1 <= permit.max_bytes <= 1 << 20
    if breaker.state in {BreakerState.BACKING_OFF, BreakerState.MISCONFIGURED}:
        assert permit.max_events == 1
    assert len(breaker.accused) < IN_A_ROW


@given(st.lists(ANSWERS, max_size=40))
def test_a_breaker_that_waits_lets_one_send_ask_at_a_time(answers: list[tuple]) -> None:
    breaker, now = played(answers)
    asking = [InFlight(others=1, others_now=1), InFlight(isolated=1, isolated_now=1)]
    if breaker.state in {BreakerState.BACKING_OFF, BreakerState.MISCONFIGURED}:
        assert [breaker.wait_seconds(now + 1e6, one) for one in asking] == [None, None]
    if breaker.state is BreakerState.RECOVERING:
        assert breaker.wait_seconds(now, asking[0]) is None
    paused = breaker.with_paused(paused=True)
    assert paused.wait_seconds(now + 1e6, IDLE) is None
    assert not paused.holds(breaker.permit(IDLE))


@given(st.lists(ANSWERS, max_size=40))
def test_an_answer_from_before_the_last_trouble_closes_nothing(answers: list[tuple]) -> None:
    breaker, now = played(answers)
    old = replace(breaker.permit(IDLE), epoch=breaker.epoch - 1)
    for signal in (Signal.TROUBLE, Signal.BUSY, Signal.REFUSED, Signal.MISCONFIGURED):
        late = breaker.after(signal, permit=old, now=now, jitter=0.5, newly_refused=7)
        assert (late.state, late.epoch, late.failures) == (
            breaker.state,
            breaker.epoch,
            breaker.failures,
        )


def test_suspects_wait_for_no_sender_and_take_none() -> None:
    breaker = Breaker.fresh(500, 1 << 20, 1)
    assert breaker.wait_seconds(0, InFlight(isolated=1, isolated_now=1)) == 0
    assert breaker.wait_seconds(0, InFlight(others=1, others_now=1)) is None
    assert breaker.permit(InFlight(isolated=1)).isolated is Isolated.NONE


def test_only_one_that_fails_while_others_pass_is_convicted() -> None:
    breaker = passed(Breaker.fresh(500, 1 << 20, 4), 0)
    permit = breaker.permit(IDLE)
    accused = breaker.after(Signal.TROUBLE, permit=permit, now=0, jitter=0.5, suspect=7)
    assert (accused.state, accused.accused, accused.convicted) == ("healthy", {7}, set())
    itself = accused.after(Signal.PASSED, permit=permit, now=0, jitter=0.5, suspect=7)
    assert itself.convicted == frozenset()
    assert passed(accused, 0).convicted == {7}
    outage = accused.after(Signal.TROUBLE, permit=permit, now=0, jitter=0.5)
    assert (outage.state, passed(outage, 9).convicted) == ("backing_off", frozenset())
    assert not breaker.may_blame(Signal.BUSY, 7, permit)
