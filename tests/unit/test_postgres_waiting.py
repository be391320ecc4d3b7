"""Which of the calls that wait share a statement."""

from __future__ import annotations

import pytest

from service.outbox.keys import IdempotencyKey
from service.outbox.postgres.appends import Append
from service.outbox.postgres.waiting import WaitingAppends
from tests.support.appends import call
from tests.support.storage import event

ONE = event()
MEBI = 2**20
BIG = event(size=MEBI)


def key(name: str, lifetime_seconds: float | None = None) -> IdempotencyKey:
    return IdempotencyKey(name, b"1", lifetime_seconds)


def sizes(calls: list[Append]) -> list[list[int]]:
    """How many events each call of each statement has."""
    waiting = WaitingAppends(calls)
    taken = []
    while waiting:
        taken.append([len(one.events) for one in waiting.take()])
    return taken


@pytest.mark.parametrize(
    ("calls", "statements"),
    [
        ([1] * 1001, [[1] * 1000, [1]]),
        ([999, 1, 1], [[999, 1], [1]]),
        ([999, 2], [[999], [2]]),
        ([1, 1000], [[1], [1000]]),
        ([2000, 1], [[2000], [1]]),
        ([400, 601, 400], [[400], [601], [400]]),
        ([400, 600, 400], [[400, 600], [400]]),
    ],
)
async def test_a_statement_has_at_most_1000_events_and_no_part_of_a_call(
    calls: list[int], statements: list[list[int]]
) -> None:
    assert sizes([call(*[ONE] * events) for events in calls]) == statements


@pytest.mark.parametrize(
    ("calls", "statements"),
    [
        ([8, 1], [[8], [1]]),
        ([4, 4, 1], [[4, 4], [1]]),
        ([4, 5], [[4], [5]]),
        ([9, 1], [[9], [1]]),
        ([7, 1, 1], [[7, 1], [1]]),
    ],
)
async def test_a_statement_has_at_most_8_mebibytes(
    calls: list[int], statements: list[list[int]]
) -> None:
    assert sizes([call(*[BIG] * events) for events in calls]) == statements


async def test_one_byte_more_than_8_mebibytes_waits() -> None:
    more = event(size=MEBI + 1)
    assert sizes([call(*[BIG] * 7), call(BIG)]) == [[7, 1]]
    assert sizes([call(*[BIG] * 7), call(more)]) == [[7], [1]]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (key("a"), key("a"), True),  # the unique index decides
        (key("a"), key("a", 60.0), False),
        (key("a", 60.0), key("a"), False),
        (key("a", 60.0), key("a", 60.0), False),
        (key("a", 60.0), key("b", 60.0), True),
        (key("a", 60.0), None, True),
    ],
)
async def test_a_call_that_is_stored_whole_or_not_at_all_shares_no_key(
    first: IdempotencyKey, second: IdempotencyKey | None, *, together: bool
) -> None:
    calls = [call(ONE, keys=[first]), call(ONE, keys=[second])]
    assert sizes(calls) == ([[1, 1]] if together else [[1], [1]])


async def test_all_keys_of_all_earlier_calls_are_looked_at() -> None:
    several = [call(ONE, ONE, keys=[key("a"), key("b")]), call(ONE), call(ONE, keys=[key("b")])]
    assert sizes(several) == [[2, 1], [1]]
    alone = [call(ONE, keys=[key("a")]), call(ONE), call(ONE, ONE, keys=[key("b"), key("a")])]
    assert sizes(alone) == [[1, 1], [2]]


async def test_keys_of_two_owners_are_two_keys() -> None:
    other = event("u-2")
    assert sizes([call(ONE, keys=[key("a", 9.0)]), call(other, keys=[key("a", 9.0)])]) == [[1, 1]]


async def test_a_call_that_nobody_waits_for_is_left_out_and_counts_for_nothing() -> None:
    left, large = call(ONE, keys=[key("a", 9.0)]), call(*[ONE] * 1000)
    left.done.cancel()
    large.done.cancel()
    last = call(ONE, keys=[key("a", 9.0)])
    waiting = WaitingAppends([left, large, last])
    assert waiting.take() == [last]
    assert not waiting
    assert waiting.take() == []
