"""What a ride costs: a module for the trial of the trial."""

from __future__ import annotations

LONG_KILOMETRES = 10


def fare(kilometres: int, *, night: bool) -> int:
    """Cents for a ride; a long one is half the price."""
    price = 200
    if kilometres > LONG_KILOMETRES:
        price = 100
    return price * kilometres if night else price
