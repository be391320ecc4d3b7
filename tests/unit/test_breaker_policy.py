"""How long the breaker waits and with how many events it probes, by what may be the cause."""

from __future__ import annotations

import pytest

from service.relay.breaker_policy import BreakerPolicy, Cause

POLICY = BreakerPolicy(
    first_backoff=1.0,
    max_backoff=10.0,
    max_backoff_among_bad=3.0,
    min_backoff=0.5,
    max_retry_after=100.0,
    trusted_retry_after=20.0,
    blind_retry_after=40.0,
    first_probes=2,
    max_probes=9,
    max_blind_probes=5,
    widen_after=3,
    widest_rounds=6,
)
GROWING = [1, 2, 4, 8, 10, 10, 10, 10]
BOUNDED = [1, 2, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("cause", "longest"),
    [
        (Cause.UNKNOWN, GROWING),
        (Cause.INNGEST, GROWING),
        (Cause.BAD_EVENTS, [*BOUNDED, 3, 3]),
        (Cause.JUDGED, [*BOUNDED, 10, 10]),
    ],
)
def test_the_longest_wait_doubles_and_is_short_among_bad_events(
    cause: Cause, longest: list[float]
) -> None:
    for failures, most in enumerate(longest):
        for jitter in (0.5, 0.75):
            assert POLICY.backoff_seconds(failures, jitter, cause) == most * jitter
    assert POLICY.backoff_seconds(1000, 0.5) == 5


def test_there_is_always_some_wait() -> None:
    assert POLICY.backoff_seconds(0, 0.0) == 0.5
    assert POLICY.backoff_seconds(5, 0.01) == 0.5


@pytest.mark.parametrize(
    ("asked", "passing", "waited"),
    [
        (15.0, True, 15.0),
        (30.0, True, 20.0),
        (30.0, False, 30.0),
        (50.0, False, 40.0),
        (9999.0, False, 40.0),
    ],
)
def test_a_retry_after_is_waited_for_up_to_a_bound(
    asked: float, waited: float, *, passing: bool
) -> None:
    assert POLICY.retry_after_seconds(asked, passing=passing) == waited
    impatient = BreakerPolicy(max_retry_after=1.0)
    assert impatient.retry_after_seconds(asked, passing=passing) == 1.0


@pytest.mark.parametrize(
    ("cause", "rounds"),
    [
        (Cause.UNKNOWN, [1, 1, 1, 2, 4, 5, 1, 1]),
        (Cause.INNGEST, [1, 1, 1, 1, 1, 1, 1, 1]),
        (Cause.BAD_EVENTS, [2, 4, 8, 9, 9, 9, 9, 9]),
        (Cause.JUDGED, [2, 4, 8, 9, 9, 9, 1, 1]),
    ],
)
def test_rounds_of_probes_widen_by_cause(cause: Cause, rounds: list[int]) -> None:
    assert [POLICY.probes(failures, cause) for failures in range(8)] == rounds
    assert BreakerPolicy().probes(1000, Cause.BAD_EVENTS) == 32
