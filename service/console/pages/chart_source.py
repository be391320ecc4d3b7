"""The data of the charts: the outbox's history and its latest sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from service.console.operations.rates import Movement
from service.console.pages.charts import Chart, Span, charts, thinned
from service.outbox.clock import wall_now_ms
from service.outbox.figures import Sample
from service.outbox.ports import Samples

_READ_AGAIN_SECONDS = 20.0


class Latest(Protocol):
    """The latest sample of the outbox."""

    @property
    def latest(self) -> Movement | None:
        """The latest sample, None before the first."""
        ...


class ChartSource:
    """Draws charts. The history of a span is read at most every 20 seconds."""

    def __init__(
        self, samples: Samples, seen: Latest, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._samples = samples
        self._seen = seen
        self._clock = clock
        self._read: dict[str, tuple[float, list[Sample]]] = {}

    async def charts(self, span: Span) -> tuple[Chart, Chart]:
        """The charts of a span that ends now. Raises OutboxUnavailableError."""
        now_ms = wall_now_ms()
        kept = await self._history(span, now_ms)
        return charts([*kept, *self._now(now_ms)], span, now_ms)

    async def rows(self, span: Span) -> Sequence[Sample]:
        """The data of a span as rows of a table, newest first. Raises OutboxUnavailableError."""
        return thinned(await self._history(span, wall_now_ms()), span.row_ms)[::-1]

    async def _history(self, span: Span, now_ms: int) -> list[Sample]:
        read_at, found = self._read.get(span.name, (-_READ_AGAIN_SECONDS, []))
        if self._clock() - read_at >= _READ_AGAIN_SECONDS:
            found = await self._samples.between(now_ms - span.length_ms, now_ms)
            self._read[span.name] = self._clock(), found
        return found

    def _now(self, now_ms: int) -> list[Sample]:
        latest = self._seen.latest
        if latest is None:
            return []
        delivery = latest.view.delivery
        state, reason = (delivery.state, delivery.reason or "") if delivery else ("healthy", "")
        rates = latest.accepted_rate, latest.delivered_rate
        return [Sample(now_ms, latest.waiting, latest.view.dead, *rates, state, reason)]
