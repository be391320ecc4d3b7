from __future__ import annotations

import msgspec

from service.console.operations.views import StatsView, moved, stats_view
from service.outbox.figures import Stats

QUIET = stats_view(Stats(0, 0, 0, 0, None, None, None, None, None), serving=True)


def figures(**changes: int) -> StatsView:
    return msgspec.structs.replace(QUIET, **changes)


def test_the_first_look_shows_no_movement() -> None:
    first = moved(None, figures(pending=5, delivering=2), 0.0)
    assert (first.accepted_rate, first.delivered_rate, first.peak) == (0.0, 0.0, 7)


def test_rates_are_what_was_settled_and_what_came_on_top() -> None:
    first = moved(None, figures(pending=10), 0.0)
    second = moved(first, figures(pending=6, delivering=2, delivered=7, dead=1), 2.0)
    assert second.delivered_rate == 3.5
    assert second.accepted_rate == 3.0
    assert second.peak == 10


def test_purged_rows_do_not_count_backwards() -> None:
    first = moved(None, figures(delivered=1000), 0.0)
    second = moved(first, figures(delivered=10), 1.0)
    assert (second.accepted_rate, second.delivered_rate) == (0.0, 0.0)


def test_the_peak_starts_again_when_nothing_waits() -> None:
    full = moved(None, figures(pending=100), 0.0)
    empty = moved(full, figures(delivered=100), 1.0)
    retry = moved(empty, figures(delivered=100, pending=3), 1.0)
    assert (full.peak, empty.peak, retry.peak) == (100, 100, 3)
