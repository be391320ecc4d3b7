"""RATE_LIMIT_PER_USER: a second's worth at once, then the rate."""

from __future__ import annotations

import pytest

from service.errors import RateLimitedError
from service.web.signin.auth import RateLimit
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def accepted(limit: RateLimit, owner: str, times: int) -> int:
    found = 0
    for _ in range(times):
        try:
            limit.check(owner)
        except RateLimitedError:
            continue
        found += 1
    return found


def test_without_a_limit_everything_passes(clock):
    assert accepted(RateLimit(None, clock=clock), "a", 1000) == 1000


def test_a_seconds_worth_passes_at_once_and_then_the_rate(clock):
    limit = RateLimit(5, clock=clock)
    assert accepted(limit, "a", 20) == 5
    clock.now += 0.4
    assert accepted(limit, "a", 20) == 2
    clock.now += 60
    assert accepted(limit, "a", 20) == 5


def test_each_owner_is_counted_apart(clock):
    limit = RateLimit(3, clock=clock)
    assert (accepted(limit, "a", 9), accepted(limit, "b", 9)) == (3, 3)


def test_who_is_refused_does_not_wait_longer_for_asking(clock):
    limit = RateLimit(1, clock=clock)
    assert accepted(limit, "a", 50) == 1
    clock.now += 1
    assert accepted(limit, "a", 50) == 1


def test_who_is_refused_is_told_when_to_come_again(clock):
    limit = RateLimit(4, clock=clock)
    assert accepted(limit, "a", 4) == 4
    for later, told in ((0.0, 1), (0.2, 1)):
        clock.now = 1000.0 + later
        with pytest.raises(RateLimitedError) as refused:
            limit.check("a")
        assert refused.value.retry_after_seconds == told
    clock.now = 1000.25
    limit.check("a")


def test_a_slow_rate_says_how_many_whole_seconds_are_left(clock):
    limit = RateLimit(0.1, clock=clock)
    limit.check("a")
    for later, told in ((0.0, 10), (0.5, 10), (9.0, 1), (9.5, 1)):
        clock.now = 1000.0 + later
        with pytest.raises(RateLimitedError) as refused:
            limit.check("a")
        assert refused.value.retry_after_seconds == told
    clock.now = 1010.0
    limit.check("a")


def test_the_owners_of_the_last_10000_requests_are_remembered(clock):
    limit = RateLimit(1, clock=clock)
    for number in range(10_000):
        limit.check(str(number))
    with pytest.raises(RateLimitedError):
        limit.check("0")
    limit.check("new")
    limit.check("0")  # the oldest was forgotten
    with pytest.raises(RateLimitedError):
        limit.check("2")
    clock.now += 1
    limit.check("3")  # now the newest
    for number in range(3):
        limit.check(f"newer {number}")
    with pytest.raises(RateLimitedError):
        limit.check("3")
