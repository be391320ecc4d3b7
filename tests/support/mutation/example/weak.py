from __future__ import annotations

from tests.support.mutation.example.fare import fare


def test_a_short_ride_has_its_fare() -> None:
    assert fare(3, night=False) == 200
