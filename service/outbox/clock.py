"""The store's own clock, which decides leases and due times."""

from __future__ import annotations

import time


class Clock:
    """Milliseconds since 1970 that never jump: wall time at the start, then monotonic time."""

    def __init__(self) -> None:
        self._base = time.time() - time.monotonic()

    def now_ms(self) -> int:
        """Now, by this clock."""
        return int((self._base + time.monotonic()) * 1000)
