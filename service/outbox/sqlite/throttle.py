"""How soon one claim may follow another, so that a drain leaves time for posts.

Claims and appends share one thread. While many events come in, claims are spaced: they drain 25,000
events a second with full batches of 500, or a quarter more than the posts bring.
"""

from __future__ import annotations

from collections.abc import Callable

BUSY_APPENDS_PER_SECOND = 2000
PAUSE_SECONDS = 0.02
_AHEAD = 1.25


class ClaimThrottle:
    """Says when the next claim may run. `appended` returns how many events were appended so far."""

    def __init__(self, appended: Callable[[], int], clock: Callable[[], float]) -> None:
        self._appended = appended
        self._clock = clock
        self._claimed_at = clock()
        self._appended_then = appended()

    def pause_seconds(self, max_events: int) -> float:
        """How long the next claim, of `max_events`, should wait.

        0 unless many events came in since the last one.
        """
        since = self._clock() - self._claimed_at
        came = self._appended() - self._appended_then
        if not came or came < since * BUSY_APPENDS_PER_SECOND:
            return 0.0
        keeping_up = since * max_events / (came * _AHEAD)
        return max(0.0, min(PAUSE_SECONDS, keeping_up) - since)

    def claimed(self) -> None:
        """A claim runs now."""
        self._claimed_at = self._clock()
        self._appended_then = self._appended()
