"""Time in milliseconds: the wall's, and the store's own, which decides leases and due times."""

from __future__ import annotations

import time


def wall_now_ms() -> int:
    """Now by the wall clock, in milliseconds since 1970; may jump."""
    return int(time.time() * 1000)


class Clock:
    """Milliseconds since 1970 that never jump: wall time at the start, then monotonic time."""

    def __init__(self) -> None:
        self._base = time.time() - time.monotonic()

    def now_ms(self) -> int:
        """Now, by this clock."""
        return int((self._base + time.monotonic()) * 1000)
