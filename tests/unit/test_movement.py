from __future__ import annotations

import msgspec

from service.console.operations.views import StatsView, moved, stats_view
from service.outbox.figures import Stats

QUIET = stats_view(Stats(0, 0, 0, 0, None, None, None, None, None), serving=True)


def figures(**changes: int) -> StatsView:
    return msgspec.structs.replace(QUIET, **changes)


def test_the_first_look_shows_no_movement() -> None:
    view = figures(pending=5, delivering=2, sent=3, delivered=4)
    for first in (moved(None, view, 9.0), moved(moved(None, QUIET, 0.0), view, 0.0)):
        assert (first.accepted_rate, first.delivered_rate) == (0.0, 0.0)
        assert (first.waiting, first.peak) == (10, 10)


def test_rates_are_what_was_settled_and_what_came_on_top() -> None:
    first = moved(None, figures(pending=10, dead=2), 0.0)
    second = moved(first, figures(pending=6, delivering=2, delivered=7, dead=3), 2.0)
    assert second.delivered_rate == 3.5
    assert second.accepted_rate == 3.0
    assert second.peak == 10
    assert moved(second, figures(sent=11), 1.0).peak == 11
    purged = moved(second, figures(delivered=3), 1.0)
    assert (purged.accepted_rate, purged.delivered_rate) == (0.0, 0.0)


def test_the_peak_starts_again_when_nothing_waits() -> None:
    full = moved(None, figures(pending=100), 0.0)
    empty = moved(full, figures(delivered=100), 1.0)
    retry = moved(empty, figures(delivered=100, pending=3), 1.0)
    assert (full.peak, empty.peak, retry.peak) == (100, 100, 3)
