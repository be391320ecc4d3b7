"""The fake Inngest's clock: the machine's, or moved ahead of it."""

from __future__ import annotations

import time
from collections.abc import Callable


class MovableClock:
    """Wall time that can be told to move. `source` gives the time in seconds."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._moved_seconds = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self._source() + self._moved_seconds

    @property
    def now_ms(self) -> int:
        """The time in milliseconds."""
        return int(self() * 1000)

    def move(self, seconds: float) -> None:
        """Move by `seconds`; negative ones move back."""
        self._moved_seconds += seconds
