"""Time in milliseconds: wall time, and the store's own clock for leases and due times."""

from __future__ import annotations

import time


def wall_now_ms() -> int:
    """Wall time in milliseconds since 1970. It may jump."""
    return int(time.time() * 1000)


class Clock:
    """A clock that never jumps: wall time at the start, then monotonic time."""

    def __init__(self) -> None:
        self._base = time.time() - time.monotonic()

    def now_ms(self) -> int:
        """Milliseconds since 1970, by this clock."""
        return int((self._base + time.monotonic()) * 1000)

    def earliest_ms(self) -> int:
        """This time or the wall time, the earlier one: what ends by its age ends by both."""
        return min(self.now_ms(), wall_now_ms())
