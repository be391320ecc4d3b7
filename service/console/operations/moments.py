"""Moments as people write them: how long ago, or a date and time."""

from __future__ import annotations

from datetime import UTC, datetime

from service.config.values import parse_duration


def parse_moment(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of a moment: a duration ago, or an ISO date and time.

    A time without an offset is in UTC. Raises ValueError.

    >>> parse_moment("90s", 1795559419447)
    1795559329447
    >>> parse_moment("2026-11-24", 0), parse_moment("2026-11-24 22:30:19+01:00", 0)
    (1795478400000, 1795555819000)
    """
    try:
        seconds = parse_duration(text)
    except ValueError:
        return _time_ms(text)
    if not isinstance(seconds, float):
        raise TypeError(text)
    return now_ms - round(seconds * 1000)


def _time_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ValueError(
            "write how long ago, such as 10m or 7d, or a time, such as 2026-11-24T22:30 (UTC)"
        ) from error
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(zoned.timestamp() * 1000)
