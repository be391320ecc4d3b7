"""The lane: whatever was answered, it opens again, and closed it lets one event ask."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from service.outbox.outbox import Suspects
from service.relay.lane import (
    IN_A_ROW,
    MAX_RETRY_AFTER_SECONDS,
    Lane,
    LaneState,
    Signal,
    UnderWay,
)

IDLE = UnderWay()
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


def played(answers: list[tuple]) -> tuple[Lane, float]:
    lane, now = Lane.fresh(500, 1 << 20, 4), 0.0
    permits = [lane.permit(IDLE)]
    for signal, jitter, retry_after, suspect, newly, size, drained, ago in answers:
        now += lane.wait_seconds(now, IDLE) or 0.0
        permits.append(lane.permit(IDLE))
        lane = lane.after(
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
    return lane, now


def passed(lane: Lane, now: float) -> Lane:
    return lane.after(Signal.PASSED, permit=lane.permit(IDLE), now=now, jitter=0.5)


@given(st.lists(ANSWERS, max_size=40))
def test_it_opens_again_within_ten_good_answers(answers: list[tuple]) -> None:
    lane, now = played(answers)
    wait = lane.wait_seconds(now, IDLE)
    assert wait is not None
    assert 0 <= round(wait, 6) <= MAX_RETRY_AFTER_SECONDS
    for _ in range(10):
        lane = passed(lane, now)
    assert (lane.state, lane.reason, lane.failures) == (LaneState.OPEN, "", 0)
    assert passed(lane, now).state is LaneState.OPEN


@given(st.lists(ANSWERS, max_size=40))
def test_a_permit_stays_within_the_limits(answers: list[tuple]) -> None:
    lane, _ = played(answers)
    permit = lane.permit(IDLE)
    assert 1 <= permit.max_events <= 500
    assert 1 <= permit.max_bytes <= 1 << 20
    if lane.state in {LaneState.CLOSED, LaneState.MISCONFIGURED}:
        assert permit.max_events == 1
    assert len(lane.accused) < IN_A_ROW


@given(st.lists(ANSWERS, max_size=40))
def test_a_lane_that_waits_lets_one_send_ask_at_a_time(answers: list[tuple]) -> None:
    lane, now = played(answers)
    asking = [UnderWay(others=1, others_now=1), UnderWay(suspects=1, suspects_now=1)]
    if lane.state in {LaneState.CLOSED, LaneState.MISCONFIGURED}:
        assert [lane.wait_seconds(now + 1e6, one) for one in asking] == [None, None]
    if lane.state is LaneState.RECOVERING:
        assert lane.wait_seconds(now, asking[0]) is None
    paused = lane.with_paused(paused=True)
    assert paused.wait_seconds(now + 1e6, IDLE) is None
    assert not paused.holds(lane.permit(IDLE))


@given(st.lists(ANSWERS, max_size=40))
def test_an_answer_from_before_the_last_trouble_closes_nothing(answers: list[tuple]) -> None:
    lane, now = played(answers)
    old = replace(lane.permit(IDLE), epoch=lane.epoch - 1)
    for signal in (Signal.TROUBLE, Signal.BUSY, Signal.REFUSED, Signal.MISCONFIGURED):
        late = lane.after(signal, permit=old, now=now, jitter=0.5, newly_refused=7)
        assert (late.state, late.epoch, late.failures) == (lane.state, lane.epoch, lane.failures)


def test_suspects_wait_for_no_sender_and_take_none() -> None:
    lane = Lane.fresh(500, 1 << 20, 1)
    assert lane.wait_seconds(0, UnderWay(suspects=1, suspects_now=1)) == 0
    assert lane.wait_seconds(0, UnderWay(others=1, others_now=1)) is None
    assert lane.permit(UnderWay(suspects=1)).suspects is Suspects.NONE


def test_only_one_that_fails_while_others_pass_is_convicted() -> None:
    lane = passed(Lane.fresh(500, 1 << 20, 4), 0)
    permit = lane.permit(IDLE)
    accused = lane.after(Signal.TROUBLE, permit=permit, now=0, jitter=0.5, suspect=7)
    assert (accused.state, accused.accused, accused.convicted) == ("open", {7}, set())
    itself = accused.after(Signal.PASSED, permit=permit, now=0, jitter=0.5, suspect=7)
    assert itself.convicted == frozenset()
    assert passed(accused, 0).convicted == {7}
    outage = accused.after(Signal.TROUBLE, permit=permit, now=0, jitter=0.5)
    assert (outage.state, passed(outage, 9).convicted) == ("closed", frozenset())
    assert not lane.may_blame(Signal.BUSY, 7, permit)
