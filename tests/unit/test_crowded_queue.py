"""A queue is crowded when heavy owners have more than half of its rows."""

from __future__ import annotations

import pytest

from service.outbox.limits import FAIR_SHARE, FairShare


@pytest.mark.parametrize(
    ("heavy", "total", "is_crowded"),
    [(0, 0, False), (5, 10, False), (6, 10, True), (5, 11, False), (10, 10, True)],
)
def test_more_than_half_is_crowded(heavy: int, total: int, is_crowded: bool) -> None:  # noqa: FBT001
    assert FairShare().is_noisy(heavy, total) is is_crowded


def test_half_of_a_claim_is_left_to_the_owners_of_few_rows() -> None:
    assert (FairShare().noisy_rows, FAIR_SHARE) == (1000, 0.5)
