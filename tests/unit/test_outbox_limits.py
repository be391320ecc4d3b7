"""What an outbox takes up to its limits, and how it refuses what goes beyond them."""

from __future__ import annotations

import pytest

from service.errors import OutboxFullError, RefusedError, TooManyPendingError
from service.outbox.limits import FAIR_SHARE, FairShare, Limits, Usage

LIMITS = Limits(10, 5, max_bytes=1000, max_bytes_per_owner=500)
NOTHING: Usage = (0, 0)


@pytest.mark.parametrize(
    ("owner", "everybody", "rows", "size"),
    [
        (NOTHING, NOTHING, 1, 1),
        ((3, 0), (3, 0), 2, 0),  # the owner's last rows
        ((0, 0), (8, 0), 2, 0),  # the outbox's last rows
        ((0, 400), (0, 400), 0, 100),  # the owner's last bytes
        ((0, 0), (0, 900), 0, 100),  # the outbox's last bytes
    ],
)
def test_what_has_room_is_taken(owner: Usage, everybody: Usage, rows: int, size: int) -> None:
    LIMITS.check(owner, everybody, rows, size)


@pytest.mark.parametrize(
    ("owner", "everybody", "rows", "size", "refusal", "words"),
    [
        ((3, 0), (3, 0), 3, 0, TooManyPendingError, "You have too many events waiting"),
        ((5, 0), (10, 0), 1, 0, TooManyPendingError, "You have too many events waiting"),
        ((0, 0), (8, 0), 3, 0, OutboxFullError, "The outbox is full"),
        ((0, 400), (0, 400), 1, 101, TooManyPendingError, "events have reached their limit in by"),
        ((0, 500), (0, 1000), 1, 1, TooManyPendingError, "events have reached their limit in by"),
        ((0, 0), (0, 900), 1, 101, OutboxFullError, "The outbox has reached its limit in bytes"),
    ],
)
def test_what_has_no_room_is_refused_for_the_owner_first(
    owner: Usage, everybody: Usage, rows: int, size: int, refusal: type[RefusedError], words: str
) -> None:
    with pytest.raises(refusal, match=words) as refused:
        LIMITS.check(owner, everybody, rows, size)
    assert refused.value.retry_after_seconds == 5


def test_without_a_limit_any_number_of_bytes_is_taken() -> None:
    Limits(10, 5).check((0, 10**15), (0, 10**15), 1, 10**12)
    Limits(10, 5, max_bytes=1000).check((0, 900), (0, 900), 1, 100)
    Limits(10, 5, max_bytes_per_owner=1000).check((0, 0), (0, 10**15), 1, 1000)


@pytest.mark.parametrize("limits", [Limits(10, 5, max_bytes=0), Limits(10, 5, None, 0)])
def test_a_limit_of_no_bytes_is_a_limit(limits: Limits) -> None:
    with pytest.raises(RefusedError):
        limits.check(NOTHING, NOTHING, 1, 1)


@pytest.mark.parametrize(
    ("heavy", "total", "is_crowded"),
    [(0, 0, False), (5, 10, False), (6, 10, True), (5, 11, False), (10, 10, True)],
)
def test_a_queue_is_crowded_when_noisy_owners_have_more_than_half_of_its_rows(
    heavy: int, total: int, *, is_crowded: bool
) -> None:
    assert FairShare().is_noisy(heavy, total) is is_crowded


def test_half_of_a_claim_is_left_to_the_owners_of_few_rows() -> None:
    assert (FairShare().noisy_rows, FAIR_SHARE) == (1000, 0.5)
