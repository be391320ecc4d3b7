"""The waits of the writer: for the disk, for appends that are on their way, between two claims.

Clients that a commit answered post again soon, but through several front processes, whose messages
come one by one. A commit that starts with the first message leaves the others to the next commit.
One that waits for all of them finds every client waiting for it, and the fronts idle; so where they
are many, each commit takes half, and the fronts serve one half while the other is written. Claims
and appends share one thread: while many events come in, claims are spaced, and a backlog is drained
with what posts leave of the processor. The invariants: a commit waits only after one of several
appends, so an idle outbox commits at once; claims take at least a quarter more than posts bring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

_TICK_SECONDS = 0.001  # of uvloop's timers
_AHEAD = 1.25
_SLOWER, _FASTER = 1.25, 0.8


@dataclass(frozen=True, slots=True)
class DelayPolicy:
    """A commit waits for at most `share` of the last commit's time, at most `most_seconds`.

    It waits only when the last one had `least_appends` or more. It waits for half of the appends
    that are on their way, for all of them up to `least_awaited`, and for `most_awaited` at most. A
    share of 0 is no wait.
    """

    share: float = 0.0
    least_appends: int = 5
    least_awaited: int = 16
    most_awaited: int = 64
    most_seconds: float = 0.01


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


@dataclass(frozen=True, slots=True)
class WriterTimings:
    """The waits of the writer.

    After `stall_seconds` without an answer from the disk, waiting callers get an error. While the
    outbox can't be written, a probe tries it every `probe_seconds`. A commit without a sync is
    synced after `sync_seconds`. A group waits at most `gather_turns` turns of the event loop for
    requests that have arrived, then as long as `delay` says. Claims follow one another as
    `pace` says.
    """

    stall_seconds: float = 3.0
    probe_seconds: float = 0.5
    sync_seconds: float = 1.0
    gather_turns: int = 8
    delay: DelayPolicy = field(default_factory=DelayPolicy)
    pace: ClaimPace = field(default_factory=ClaimPace)


class CommitDelay:
    """Says how long the next commit should wait. `clock` gives seconds."""

    def __init__(self, policy: DelayPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._began = 0.0
        self._awaited = 0
        self._until = 0.0

    def begins(self) -> None:
        """A commit begins now."""
        self._began = self._clock()

    def committed(self, appends: int, *, waiting: int) -> None:
        """The commit of `appends` has ended, while `waiting` others came.

        So many clients post at the same time.
        """
        policy, now = self._policy, self._clock()
        coming = waiting + appends if appends >= policy.least_appends else 0
        self._awaited = max(
            min(coming, policy.least_awaited), min(coming // 2, policy.most_awaited)
        )
        self._until = now + min((now - self._began) * policy.share, policy.most_seconds)

    def seconds(self, waiting: int) -> float:
        """The seconds that the next commit should still wait; 0 when enough wait."""
        if waiting >= self._awaited:
            return 0.0
        rest = self._until - self._clock()
        return 0.0 if rest < _TICK_SECONDS / 2 else rest


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
        self._used_then: float | None = None
        self._is_draining = False
        self._space = pace.pause_seconds

    def pause_seconds(self, max_events: int) -> float:
        """The seconds that the next claim, of `max_events`, should wait.

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
        pace = self._pace
        # The processor's time is a system call: a stream of posts does not need it.
        used = self._used() if self._is_draining else None
        since, is_busy = now - self._looked_at, False
        if used is not None and self._used_then is not None:
            is_busy = used - self._used_then > since * pace.processor_share
        self._used_then, self._looked_at = used, now
        space = self._space * (_SLOWER if is_busy else _FASTER)
        self._space = min(max(space, pace.pause_seconds), pace.longest_seconds)
