from __future__ import annotations

import pytest

from tests.support.mutation.example.fare import LONG_KILOMETRES, fare


@pytest.mark.parametrize(("kilometres", "cents"), [(LONG_KILOMETRES, 200)])
def test_a_ride_is_long_beyond_the_constant(kilometres: int, cents: int) -> None:
    assert fare(kilometres, night=False) == cents
    assert fare(kilometres + 1, night=False) == cents // 2
