"""The last hour as pictures: inline SVG that needs no script, with its figures in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.operations.sampler import Point

_WIDTH, _HEIGHT = 720, 120
_HOUR_MS = 3_600_000


def backlog_chart(points: Sequence[Point], now_ms: int) -> str:
    """How many events waited, as an area."""
    most = max((point.waiting for point in points), default=0)
    last = points[-1].waiting if points else 0
    words = f"Waiting over the last hour: {last:,} now, {most:,} at most."
    area = _line(points, now_ms, most, lambda point: point.waiting)
    if area:
        first, end = area.split()[0].split(",")[0], area.split()[-1].split(",")[0]
        area = f"{first},{_HEIGHT} {area} {end},{_HEIGHT}"
    return _figure(words, f'<polyline class="waiting" points="{area}"/>')


def rates_chart(points: Sequence[Point], now_ms: int) -> str:
    """Events accepted and delivered per second, a line each."""
    most = max((max(p.accepted_rate, p.delivered_rate) for p in points), default=0.0)
    last = points[-1] if points else Point(0, 0, 0.0, 0.0)
    words = (
        f"Events per second over the last hour: accepted {last.accepted_rate:,.1f} (dashed), "
        f"delivered {last.delivered_rate:,.1f} (solid), {most:,.1f} at most."
    )
    lines = (
        f'<polyline class="accepted" points="{_line(points, now_ms, most, _accepted)}"/>'
        f'<polyline class="delivered" points="{_line(points, now_ms, most, _delivered)}"/>'
    )
    return _figure(words, lines)


def _accepted(point: Point) -> float:
    return point.accepted_rate


def _delivered(point: Point) -> float:
    return point.delivered_rate


def _figure(words: str, inside: str) -> str:
    return (
        f'<figure><svg class="chart" role="img" aria-label="{words}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none">{inside}</svg>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _line(
    points: Sequence[Point], now_ms: int, most: float, value: Callable[[Point], float]
) -> str:
    """The points of a polyline; the hour is the width, `most` the height."""
    return " ".join(
        f"{_WIDTH * (1 - (now_ms - point.at) / _HOUR_MS):.1f},"
        f"{_HEIGHT - (_HEIGHT - 4) * value(point) / (most or 1):.1f}"
        for point in points
    )
