"""Bugs that are planted on purpose, so that the simulation is seen to find them."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.simulation import (
    planted_confirmation,
    planted_delivery,
    planted_intake,
    planted_time,
    planted_upkeep,
)

PLANTED: dict[str, Callable[[], None]] = {
    **planted_intake.BUGS,
    **planted_delivery.BUGS,
    **planted_confirmation.BUGS,
    **planted_time.BUGS,
    **planted_upkeep.BUGS,
}
