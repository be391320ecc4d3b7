"""Claims leave time for posts, and still keep up with them."""

from __future__ import annotations

from service.outbox.sqlite.throttle import BUSY_APPENDS_PER_SECOND, PAUSE_SECONDS, ClaimThrottle

BATCH = 500
STEP_SECONDS = 0.001


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def drained_in_a_second(arriving: float) -> int:
    """How many events full claims take in a second while so many are appended a second."""
    clock = Clock()
    throttle = ClaimThrottle(lambda: int((clock.now - 100.0) * arriving), clock)
    drained = 0
    while clock.now < 101.0:
        clock.now += STEP_SECONDS  # a claim takes a moment
        clock.now += throttle.pause_seconds(BATCH)
        throttle.claimed()
        drained += BATCH
    return drained


def test_few_posts_slow_no_claim_down() -> None:
    assert drained_in_a_second(BUSY_APPENDS_PER_SECOND / 4) > 400_000


def test_many_posts_space_the_claims_of_a_backlog() -> None:
    assert drained_in_a_second(10_000) < 1.1 * BATCH / PAUSE_SECONDS


def test_claims_keep_up_with_arrays_of_events() -> None:
    for arriving in (10_000, 40_000, 80_000):
        assert drained_in_a_second(arriving) > arriving


def test_claims_of_arrays_are_not_much_faster_than_the_posts() -> None:
    assert drained_in_a_second(80_000) < 1.6 * 80_000
