"""How long a commit waits for appends that are on their way from other processes.

Clients that a commit answered post again soon, but through several front processes, whose messages
come one by one. A commit that starts with the first message leaves the others to the next commit.
One that waits for all of them finds every client waiting for it, and the fronts idle; so where they
are many, each commit takes half, and the fronts serve one half while the other is written. The
invariant: a commit waits only after one of several appends, so an idle outbox commits at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_TICK_SECONDS = 0.001  # of uvloop's timers


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


class CommitDelay:
    """Says how long the next commit should wait. `clock` gives seconds."""

    def __init__(self, policy: DelayPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._began = 0.0
        self._awaited = 0
        self._until = 0.0
        self._has_ended = False

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

    def end(self) -> None:
        """From now on no commit waits."""
        self._has_ended = True

    def seconds(self, waiting: int) -> float:
        """How long the next commit should still wait; 0 when as many wait as it waits for."""
        if waiting >= self._awaited or self._has_ended:
            return 0.0
        rest = self._until - self._clock()
        return 0.0 if rest < _TICK_SECONDS / 2 else rest
