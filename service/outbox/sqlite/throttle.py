"""How soon one claim may follow another, so that a drain leaves time for posts.

Claims and appends share one thread. While many events come in, claims are spaced, and a backlog is
drained with what posts leave of the processor. The invariant: claims take at least a quarter more
than posts bring, and no claim waits longer than the policy allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_AHEAD = 1.25
_SLOWER, _FASTER = 1.25, 0.8


@dataclass(frozen=True, slots=True)
class ClaimPace:
    """Claims are spaced while more than `busy_appends_per_second` come in.

    Then two claims are `pause_seconds` apart, and while there is no backlog at least
    `stream_pause_seconds`. While a backlog is drained and this process uses more than
    `processor_share` of a core, the space grows up to `longest_seconds`.
    """

    busy_appends_per_second: int = 2000
    pause_seconds: float = 0.02
    stream_pause_seconds: float = 0.0
    longest_seconds: float = 0.1
    processor_share: float = 0.85


class ClaimThrottle:
    """Says when the next claim may run.

    `appended` returns how many events were appended so far, `used` this process' processor time.
    """

    def __init__(
        self,
        pace: ClaimPace,
        appended: Callable[[], int],
        *,
        clock: Callable[[], float],
        used: Callable[[], float],
    ) -> None:
        self._pace = pace
        self._appended = appended
        self._clock = clock
        self._used = used
        self._claimed_at = self._looked_at = clock()
        self._appended_then = appended()
        self._used_then = used()
        self._is_draining = False
        self._space = pace.pause_seconds

    def pause_seconds(self, max_events: int) -> float:
        """How long the next claim, of `max_events`, should wait.

        0 unless many events came in since the last one.
        """
        now = self._clock()
        self._adapt(now)
        since = now - self._claimed_at
        came = self._appended() - self._appended_then
        if not came or came < since * self._pace.busy_appends_per_second:
            return 0.0
        keeping_up = since * max_events / (came * _AHEAD)
        least = 0.0 if self._is_draining else self._pace.stream_pause_seconds
        return max(0.0, min(max(self._space, least), keeping_up) - since)

    def claims(self) -> None:
        """A claim runs now."""
        self._claimed_at = self._clock()
        self._appended_then = self._appended()

    def claimed(self, *, full: bool) -> None:
        """The claim has found rows. A full one is part of a backlog."""
        self._is_draining = full

    def _adapt(self, now: float) -> None:
        """Space the claims of a backlog by how busy this process was since it was last asked."""
        pace, used = self._pace, self._used()
        took, since = used - self._used_then, now - self._looked_at
        self._used_then, self._looked_at = used, now
        is_busy = self._is_draining and took > since * pace.processor_share
        space = self._space * (_SLOWER if is_busy else _FASTER)
        self._space = min(max(space, pace.pause_seconds), pace.longest_seconds)
