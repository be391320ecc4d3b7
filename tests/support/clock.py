"""A clock for what is given one."""

from __future__ import annotations


class Clock:
    """Says the seconds that it is set to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time."""
        return self.now
