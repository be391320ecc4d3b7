from __future__ import annotations

import pytest

from tests.support.mutation.example.fare import fare


@pytest.mark.parametrize(
    ("kilometres", "night", "cents"),
    [(9, False, 200), (10, False, 200), (11, False, 100), (10, True, 2000), (11, True, 1100)],
)
def test_each_ride_has_its_fare(kilometres: int, night: bool, cents: int) -> None:  # noqa: FBT001
    assert fare(kilometres, night=night) == cents
