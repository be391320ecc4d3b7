"""Rates between two samples of an outbox: events accepted and delivered per second. Pure."""

from __future__ import annotations

import msgspec

from service.console.operations.views import StatsView


class Movement(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The later of two samples, and the rates between them in events per second.

    `peak` is the largest backlog since the first sample, or since there was none.
    """

    view: StatsView
    accepted_rate: float
    delivered_rate: float
    peak: int

    @property
    def waiting(self) -> int:
        """The number of rows that are not settled."""
        return _waiting(self.view)


def moved(before: Movement | None, view: StatsView, seconds: float) -> Movement:
    """The rates since `before`, `seconds` ago. Purged rows do not make a rate negative."""
    waiting = _waiting(view)
    if before is None or seconds <= 0:
        return Movement(view, 0.0, 0.0, waiting)
    old = before.view
    settled = view.delivered + view.dead - old.delivered - old.dead
    delivered = max(0, view.delivered - old.delivered)
    accepted = max(0, settled + waiting - before.waiting)
    peak = max(before.peak, waiting) if before.waiting else waiting
    return Movement(view, accepted / seconds, delivered / seconds, peak)


def _waiting(view: StatsView) -> int:
    return view.pending + view.delivering + view.sent
