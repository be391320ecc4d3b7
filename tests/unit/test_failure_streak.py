"""When failures in a row prove that Inngest is in trouble."""

from __future__ import annotations

import pytest

from service.relay.breaker_policy import BreakerPolicy
from service.relay.evidence import FailureStreak

POLICY = BreakerPolicy(failures_in_a_row=3, failures_while_passing=5, evidence=1.0)


def streak(passed_at: float | None, *began_at: float) -> FailureStreak:
    """A pass, where there was one, and failures that were sent at these times."""
    found = FailureStreak() if passed_at is None else FailureStreak().with_pass(passed_at)
    for at in began_at:
        found = found.with_failure(at, fresh=True)
    return found


def test_failures_are_counted_from_the_first_that_was_sent() -> None:
    found = streak(10.0, 12.0, 11.0, 13.0).with_failure(14.0, fresh=False)
    assert found == FailureStreak(count=4, fresh=3, began_at=11.0, passed_at=10.0)
    assert found.passing


def test_a_pass_ends_the_failures() -> None:
    assert not FailureStreak().passing
    assert streak(10.0, 11.0).with_pass(12.0) == streak(12.0)
    assert (streak(12.0).count, streak(12.0).fresh) == (0, 0)


REFUSING = [
    # passed at, failures, now, whether Inngest refuses every event
    (None, 2, 9.0, False),
    (None, 3, 9.0, True),
    (8.1, 4, 9.0, False),
    (8.1, 5, 9.0, True),
    (8.0, 2, 9.0, False),
    (8.0, 3, 9.0, True),
]


@pytest.mark.parametrize(("passed_at", "failures", "now", "refusing"), REFUSING)
def test_so_many_in_a_row_mean_that_every_event_is_refused(
    passed_at: float | None, failures: int, now: float, *, refusing: bool
) -> None:
    found = streak(passed_at, *[now] * failures)
    assert found.is_refusing(now, POLICY) is refusing


TROUBLE = [
    # passed at, when each failure was sent, now, whether it is trouble
    pytest.param(None, [], 9.0, True, id="nothing has passed"),
    pytest.param(None, [8.9], 9.0, True, id="nothing has passed before a failure"),
    pytest.param(8.5, [8.6] * 4, 9.0, False, id="a few beside what passes"),
    pytest.param(8.5, [8.6] * 5, 9.0, True, id="many beside what passes"),
    pytest.param(1.0, [8.6] * 2, 9.0, False, id="a few long after a pass"),
    pytest.param(1.0, [8.6] * 3, 9.0, True, id="some long after a pass"),
    pytest.param(1.0, [8.0] * 2, 9.0, True, id="two over a second"),
    pytest.param(1.0, [8.6, 8.0], 9.0, True, id="two over a second, answered in reverse"),
    pytest.param(1.0, [8.1] * 2, 9.0, False, id="two over less than a second"),
    pytest.param(8.0, [7.0] * 2, 9.0, True, id="two, and nothing passed for a second"),
    pytest.param(8.1, [7.0] * 2, 9.0, False, id="two, and one passed meanwhile"),
    pytest.param(1.0, [2.0], 9.0, False, id="one that took long"),
    pytest.param(1.0, [], 9.0, False, id="none"),
]


@pytest.mark.parametrize(("passed_at", "began_at", "now", "trouble"), TROUBLE)
def test_what_proves_trouble(
    passed_at: float | None, began_at: list[float], now: float, *, trouble: bool
) -> None:
    assert streak(passed_at, *began_at).is_trouble(now, POLICY) is trouble
