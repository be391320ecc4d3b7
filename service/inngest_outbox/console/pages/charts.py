"""Charts with axes: lines and ticks as positions in percent, and the figures in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from inngest_outbox.console.operations.sampler import Sampler, sample_of
from inngest_outbox.console.operations.timeline import troubles
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.figures import MINUTE_MS, Sample
from inngest_outbox.outbox.ports import Samples

_TOP, _HEIGHT = 10.0, 80.0  # of the plot in the picture, in percent
_WIDE, _HIGH = 1000.0, 100.0  # of the plot, in its own units
_STEPS = (1, 2, 4, 6, 8, 10)
_EDGE = 5.0
_UNKNOWN = "not known yet"
_GAP = 4  # a gap of so many intervals breaks a line


@dataclass(frozen=True, slots=True)
class Span:
    """The length of a chart, the distance of its points, its ticks, its table's rows."""

    name: str
    length_ms: int
    interval_ms: int
    tick_ms: int
    row_ms: int


HOUR = Span("hour", 60 * MINUTE_MS, MINUTE_MS, 15 * MINUTE_MS, 5 * MINUTE_MS)
DAY = Span("day", 24 * 60 * MINUTE_MS, 5 * MINUTE_MS, 4 * 60 * MINUTE_MS, 60 * MINUTE_MS)
SPANS = {span.name: span for span in (HOUR, DAY)}


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis. `place` is in percent of the picture, `at_ms` the time of one of times."""

    place: float
    label: str
    anchor: str = "middle"
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: pieces between gaps, in a plot of 1000 by 100."""

    kind: str
    label: str
    pieces: tuple[str, ...]
    areas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Band:
    """A time of trouble with delivery, in the plot."""

    state: str
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart; `words` says in text what it shows."""

    title: str
    words: str
    lines: tuple[Line, ...]
    bands: tuple[Band, ...]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]


def charts(samples: Sequence[Sample], span: Span, now_ms: int) -> tuple[Chart, Chart]:
    """The backlog and the rates over a span that ends now. The last sample may be of now."""
    points = thinned(samples, span.interval_ms)
    return _backlog(points, samples, span, now_ms), _rates(points, span, now_ms)


def thinned(samples: Sequence[Sample], interval_ms: int) -> list[Sample]:
    """One sample for each interval: the most that waited, the mean of the rates."""
    groups: dict[int, list[Sample]] = {}
    for one in samples:
        groups.setdefault(one.at_ms - one.at_ms % interval_ms, []).append(one)
    return [_merged(same) for same in groups.values()]


def nice_top(value: float) -> float:
    """The end of an axis: a round number at or above `value`, which has a round half.

    >>> [nice_top(value) for value in (0.2, 3, 41, 61, 999, 1001)]
    [0.2, 4.0, 60.0, 80.0, 1000.0, 2000.0]
    """
    size = 10.0 ** math.floor(math.log10(value))
    return float(round(next(step for step in _STEPS if step * size >= value * 0.999_999) * size, 6))


def _merged(same: Sequence[Sample]) -> Sample:
    last, count = same[-1], len(same)
    return Sample(
        at_ms=last.at_ms,
        waiting=max(one.waiting for one in same),
        dead=last.dead,
        accepted_rate=sum(one.accepted_rate for one in same) / count,
        delivered_rate=sum(one.delivered_rate for one in same) / count,
        state=last.state,
        reason=last.reason,
    )


def _backlog(points: Sequence[Sample], samples: Sequence[Sample], span: Span, now_ms: int) -> Chart:
    most = max((one.waiting for one in points), default=0)
    top = nice_top(max(most, 2))
    pieces = _pieces(points, span, now_ms, lambda one: one.waiting / top)
    areas = tuple(
        f"{piece[0][0]:.1f},100 {_text(piece)} {piece[-1][0]:.1f},100" for piece in pieces
    )
    bands = tuple(_bands(samples, span, now_ms))
    line = Line("waiting", "events that wait", tuple(map(_text, pieces)), areas)
    told = f"{samples[-1].waiting:,} now, {most:,} at most" if samples else _UNKNOWN
    words = f"Waiting over the last {span.name}: {told}."
    if bands:
        words += f" Times of trouble with delivery: {len(bands)}."
    return Chart("Backlog", words, (line,), bands, _y_ticks(top), tuple(_x_ticks(span, now_ms)))


def _rates(points: Sequence[Sample], span: Span, now_ms: int) -> Chart:
    most = max((max(one.accepted_rate, one.delivered_rate) for one in points), default=0.0)
    top = nice_top(max(most, 0.2))
    accepted = _pieces(points, span, now_ms, lambda one: one.accepted_rate / top)
    delivered = _pieces(points, span, now_ms, lambda one: one.delivered_rate / top)
    told = _UNKNOWN
    if points:
        now = (
            f"accepted {points[-1].accepted_rate:,.1f}, delivered {points[-1].delivered_rate:,.1f}"
        )
        told = f"{now} now, {most:,.1f} at most"
    words = f"Events per second over the last {span.name}: {told}."
    lines = (
        Line("delivered", "delivered", tuple(map(_text, delivered))),
        Line("accepted", "accepted", tuple(map(_text, accepted))),
    )
    ticks = tuple(_x_ticks(span, now_ms))
    return Chart("Events per second", words, lines, (), _y_ticks(top), ticks)


def _pieces(
    points: Sequence[Sample], span: Span, now_ms: int, height: Callable[[Sample], float]
) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = []
    before = -math.inf
    for point in points:
        if point.at_ms - before > _GAP * span.interval_ms:
            pieces.append([])
        before = point.at_ms
        pieces[-1].append((_x(point.at_ms, span, now_ms), _HIGH * (1 - height(point))))
    return pieces


def _bands(samples: Sequence[Sample], span: Span, now_ms: int) -> Iterator[Band]:
    for one in troubles(samples):
        start, end = _x(one.from_ms, span, now_ms), _x(one.until_ms, span, now_ms)
        yield Band(one.state, round(start, 1), round(max(3.0, end - start), 1))


def _x(at_ms: int, span: Span, now_ms: int) -> float:
    return min(_WIDE, max(0.0, _WIDE * (1 - (now_ms - at_ms) / span.length_ms)))


def _text(piece: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)


def _y_ticks(top: float) -> tuple[Tick, ...]:
    return tuple(
        Tick(_TOP + _HEIGHT * (1 - share), f"{top * share:,.10g}") for share in (0.0, 0.5, 1.0)
    )


def _x_ticks(span: Span, now_ms: int) -> Iterator[Tick]:
    start = now_ms - span.length_ms
    for at in range(start + -start % span.tick_ms, now_ms + 1, span.tick_ms):
        place = 100 * (at - start) / span.length_ms
        anchor = "start" if place < _EDGE else "end" if place > 100 - _EDGE else "middle"
        label = f"{datetime.fromtimestamp(at / 1000, UTC):%H:%M}"
        yield Tick(round(place, 2), label, anchor, at)


class ChartSource:
    """Draws charts from the samples that are kept and the latest one that was `seen`."""

    def __init__(self, samples: Samples, seen: Sampler) -> None:
        self._samples = samples
        self._seen = seen

    async def drawn(self, span: Span) -> tuple[tuple[Chart, Chart], Sequence[Sample]]:
        """The charts of a span that ends now, and the rows of its table, newest first.

        Raises OutboxUnavailableError.
        """
        now_ms = wall_now_ms()
        kept = await self._samples.between(now_ms - span.length_ms, now_ms)
        latest = self._seen.latest
        now = [sample_of(now_ms, latest)] if latest else []
        return charts([*kept, *now], span, now_ms), thinned(kept, span.row_ms)[::-1]
