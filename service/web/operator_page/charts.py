"""Charts with axes: their lines and ticks as places in percent, and their figures in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.operations.sampler import Point

_MINUTE_MS = 60_000
_TOP, _HEIGHT = 10.0, 80.0  # of the plot in the picture, in percent
_STEPS = (1, 2, 4, 6, 8, 10)
_EDGE = 5.0
_GAP = 4  # a gap of so many intervals breaks a line


@dataclass(frozen=True, slots=True)
class Span:
    """How long a chart reaches back, how far apart its points are, and its ticks."""

    name: str
    length_ms: int
    interval_ms: int
    tick_ms: int


HOUR = Span("hour", 60 * _MINUTE_MS, _MINUTE_MS, 15 * _MINUTE_MS)
DAY = Span("day", 24 * 60 * _MINUTE_MS, 5 * _MINUTE_MS, 4 * 60 * _MINUTE_MS)
SPANS = {span.name: span for span in (HOUR, DAY)}


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis. `place` is in percent of the picture."""

    place: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: pieces between gaps, in a plot of 1000 by 100."""

    kind: str
    label: str
    pieces: tuple[str, ...]
    areas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart; `words` says in text what it shows."""

    title: str
    words: str
    lines: tuple[Line, ...]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...] = field(default=())


def charts(points: Sequence[Point], span: Span, now_ms: int) -> tuple[Chart, Chart]:
    """The backlog and the rates over a span that ends now."""
    seen = [point for point in points if 0 <= now_ms - point.at <= span.length_ms]
    return _backlog(seen, span, now_ms), _rates(seen, span, now_ms)


def _backlog(points: Sequence[Point], span: Span, now_ms: int) -> Chart:
    most = max((point.waiting for point in points), default=0)
    last = points[-1].waiting if points else 0
    top = nice_top(max(most, 2))
    pieces = _pieces(points, span, now_ms, lambda point: point.waiting / top)
    areas = tuple(f"{_x(piece[0])},100 {_text(piece)} {_x(piece[-1])},100" for piece in pieces)
    line = Line("waiting", "waiting events", tuple(map(_text, pieces)), areas)
    words = f"Waiting over the last {span.name}: {last:,} now, {most:,} at most."
    return Chart("Backlog", words, (line,), _y_ticks(top), _x_ticks(span, now_ms))


def _rates(points: Sequence[Point], span: Span, now_ms: int) -> Chart:
    most = max((max(one.accepted_rate, one.delivered_rate) for one in points), default=0.0)
    top = nice_top(max(most, 0.2))
    last = points[-1] if points else Point(0, 0, 0.0, 0.0)
    accepted = _pieces(points, span, now_ms, lambda point: point.accepted_rate / top)
    delivered = _pieces(points, span, now_ms, lambda point: point.delivered_rate / top)
    words = (
        f"Events per second over the last {span.name}: accepted {last.accepted_rate:,.1f}, "
        f"delivered {last.delivered_rate:,.1f} now, {most:,.1f} at most."
    )
    lines = (
        Line("delivered", "delivered", tuple(map(_text, delivered))),
        Line("accepted", "accepted", tuple(map(_text, accepted))),
    )
    return Chart("Events per second", words, lines, _y_ticks(top), _x_ticks(span, now_ms))


def nice_top(value: float) -> float:
    """The end of an axis: a round number at or above `value`, which has a round half.

    >>> [nice_top(value) for value in (0.2, 3, 41, 999, 1001)]
    [0.2, 4.0, 60.0, 1000.0, 2000.0]
    """
    size = 10.0 ** math.floor(math.log10(value))
    return round(next(step for step in _STEPS if step * size >= value * 0.999_999) * size, 6)


def _pieces(
    points: Sequence[Point], span: Span, now_ms: int, height: Callable[[Point], float]
) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = []
    before = -math.inf
    for point in points:
        if point.at - before > _GAP * span.interval_ms:
            pieces.append([])
        before = point.at
        x = 1000 * (1 - (now_ms - point.at) / span.length_ms)
        pieces[-1].append((x, 100 * (1 - height(point))))
    return pieces


def _text(piece: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)


def _x(place: tuple[float, float]) -> str:
    return f"{place[0]:.1f}"


def _y_ticks(top: float) -> tuple[Tick, ...]:
    return tuple(
        Tick(_TOP + _HEIGHT * (1 - share), f"{top * share:,.10g}") for share in (0.0, 0.5, 1.0)
    )


def _x_ticks(span: Span, now_ms: int) -> tuple[Tick, ...]:
    return tuple(_each_x_tick(span, now_ms))


def _each_x_tick(span: Span, now_ms: int) -> Iterator[Tick]:
    start = now_ms - span.length_ms
    for at in range(start + -start % span.tick_ms, now_ms + 1, span.tick_ms):
        place = 100 * (at - start) / span.length_ms
        anchor = "start" if place < _EDGE else "end" if place > 100 - _EDGE else "middle"
        yield Tick(round(place, 2), f"{datetime.fromtimestamp(at / 1000, UTC):%H:%M}", anchor)
