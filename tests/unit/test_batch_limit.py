"""How much a batch may hold: events halve and double, sizes are found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.relay.breaker_policy import BreakerPolicy
from service.relay.evidence import BatchLimit

POLICY = BreakerPolicy(shrink_sends=4, shrink_share=0.5, relax_after_sends=2)
FULL = BatchLimit.full(500, 1000)


def passing(limit: BatchLimit, *sizes: int) -> BatchLimit:
    for size in sizes:
        limit = limit.with_pass(size, POLICY)
    return limit


def failing(limit: BatchLimit, times: int) -> list[BatchLimit]:
    return [limit := limit.with_failure(POLICY) for _ in range(times)]


def test_at_first_a_batch_may_have_all_and_nothing_is_known() -> None:
    assert FULL.is_full
    assert (FULL.events, FULL.size, FULL.passed_size) == (500, 1000, 0)


@pytest.mark.parametrize(
    ("asked", "given"), [(-1, 1), (0, 1), (1, 1), (2, 2), (499, 499), (500, 500), (501, 500)]
)
def test_a_batch_may_have_between_one_event_and_the_configured_ones(asked: int, given: int) -> None:
    limit = FULL.with_events(asked)
    assert (limit.events, limit.is_full) == (given, given == 500)


def test_events_double_with_each_pass_up_to_the_configured_ones() -> None:
    limit, seen = FULL.with_events(60), []
    for _ in range(5):
        limit = passing(limit, 10)
        seen.append(limit.events)
    assert seen == [120, 240, 480, 500, 500]


def test_a_pass_changes_nothing_else_where_the_size_is_full() -> None:
    assert passing(FULL, 10) == replace(FULL, passed_size=10)
    assert passing(FULL, 10, 30, 20).passed_size == 30


def test_events_halve_when_most_of_the_last_batches_failed() -> None:
    limits = failing(FULL, 5)
    assert [limit.events for limit in limits] == [500, 500, 250, 250, 125]
    shares = [0.25, 0.4375, 0.578125 / 2, 0.466796875, 0.60009765625 / 2]
    assert [limit.failing for limit in limits] == shares
    assert failing(FULL.with_events(1), 3)[-1].events == 1


def test_a_share_of_exactly_the_limit_halves() -> None:
    limit = replace(FULL, failing=1 / 3)
    exact = BreakerPolicy(shrink_sends=4, shrink_share=(1 / 3) * 0.75 + 0.25)
    assert limit.with_failure(exact).events == 250


def test_passes_make_up_for_failures() -> None:
    [once] = failing(FULL, 1)
    assert passing(once, 10, 10).failing == 0.25 * 0.75 * 0.75
    assert failing(passing(once, 10), 1)[0].events == 500


@pytest.mark.parametrize(
    ("limit", "size", "left"), [(1000, 1000, 500), (1000, 7, 3), (200, 1000, 200), (1000, 1, 1)]
)
def test_a_size_that_was_too_large_is_halved_and_never_grows(
    limit: int, size: int, left: int
) -> None:
    assert replace(FULL, size=limit).with_too_large(size).size == left


def test_the_size_doubles_after_some_passes_up_to_the_configured_one() -> None:
    limit, seen = FULL.with_too_large(600), []
    for _ in range(7):
        limit = passing(limit, 10)
        seen.append(limit.size)
    assert seen == [300, 300, 600, 600, 600, 1000, 1000]


def test_another_that_is_too_large_begins_the_count_again() -> None:
    limit = passing(FULL.with_too_large(600), 10, 10).with_too_large(400)
    assert [passing(limit, *[10] * passes).size for passes in (2, 3)] == [200, 400]


def test_where_one_event_was_too_large_the_size_is_full_again() -> None:
    assert FULL.with_too_large(600).without_size_limit() == FULL
