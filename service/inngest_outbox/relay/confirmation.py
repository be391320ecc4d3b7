"""The rules by which a row that Inngest has answered, and does not hold, is sent again.

Inngest answers before it stores and may store much later, so a row that is not held yet is not
lost. Pure functions and values. The invariant: while Inngest stores events, a row waits until
events that were answered well after it are held.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, replace

from inngest_outbox.outbox.model import SentEntry

_MAX_DOUBLINGS = 4


class ResendReason(enum.StrEnum):
    """The reason for another send; the value is the metric's label."""

    PASSED = "passed"
    RESTARTED = "restarted"
    STALLED = "stalled"


NOTES = {
    ResendReason.PASSED: "sent again: Inngest holds newer events but not this one",
    ResendReason.RESTARTED: "sent again: Inngest was away and does not hold it",
    ResendReason.STALLED: "sent again: Inngest stores nothing and does not hold it",
}


@dataclass(frozen=True, slots=True)
class ConfirmationPolicy:
    """The patience of the confirmer.

    `reorder_seconds`: an event that was answered this much before a held one should be held too.
    `restart_seconds`: how long Inngest must have answered again after it was away, without storing
    an event that it had answered before. `stall_seconds`: how long it must have stored nothing,
    with no sign that it was away; doubled for each earlier send of the row.
    `min_poll_seconds` and `max_poll_seconds` bound the pause between sweeps, `sweep_seconds` is how
    often every row is asked for. Rows are asked for in chunks of `chunk_rows`, of which `chunks`
    are under way at a time with `questions` together. Other sweeps end after `quiet_rows` that are
    not held, and each ends after `silences` chunks in a row without an answer. An environment that
    was refused is left out for `refused_seconds`. While no row is sent, the store is read every
    `idle_seconds` and Inngest is not asked.
    """

    reorder_seconds: float = 10.0
    restart_seconds: float = 5.0
    stall_seconds: float = 60.0
    min_poll_seconds: float = 0.25
    max_poll_seconds: float = 4.0
    sweep_seconds: float = 5.0
    chunk_rows: int = 500
    chunks: int = 4
    questions: int = 16
    quiet_rows: int = 1000
    silences: int = 3
    refused_seconds: float = 5.0
    idle_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class StoreProgress:
    """The knowledge of Inngest's store; times are seconds of the caller's clock.

    `newest_held` is when the newest event that is known to be held was answered; `held_at` when an
    event was last found to be held. `silent_at` is when a question last got no answer, `away_at`
    when Inngest was last out of reach. `back_at` is when it first answered after that.
    `earlier_held_at` is when an event answered before `away_at` was last found to be held.
    """

    held_at: float
    back_at: float
    newest_held: float = float("-inf")
    silent_at: float = float("-inf")
    away_at: float = float("-inf")
    earlier_held_at: float = float("-inf")

    def with_held(self, held: Collection[SentEntry], now: float) -> StoreProgress:
        """After these rows were found to be held.

        A row that was sent more than once does not count: an earlier copy may be held.
        """
        if not held:
            return self
        earlier = any(now - entry.sent_seconds <= self.away_at for entry in held)
        once = [now - entry.sent_seconds for entry in held if entry.sends <= 1]
        return replace(
            self,
            held_at=now,
            newest_held=max([self.newest_held, *once]),
            earlier_held_at=now if earlier else self.earlier_held_at,
        )

    def with_silence(self, now: float, *, away: bool) -> StoreProgress:
        """After a question got no answer; `away` says that Inngest was out of reach."""
        return replace(self, silent_at=now, away_at=now if away else self.away_at)

    def with_new_connection(self, now: float) -> StoreProgress:
        """After the connection to Inngest had to be made again: it may have been restarted."""
        return self.with_silence(now, away=True)

    def with_answer(self, now: float) -> StoreProgress:
        """After Inngest answered a question."""
        return self if self.back_at > self.silent_at else replace(self, back_at=now)


def resend_reason(
    entry: SentEntry, progress: StoreProgress, policy: ConfirmationPolicy, now: float
) -> ResendReason | None:
    """The reason to send a row again that is not held; None: wait."""
    answered_at = now - entry.sent_seconds
    if progress.newest_held - answered_at > policy.reorder_seconds:
        return ResendReason.PASSED
    if progress.back_at <= progress.silent_at:
        return None
    if progress.away_at >= answered_at:
        earlier_quiet = now - max(progress.earlier_held_at, progress.back_at)
        if earlier_quiet > policy.restart_seconds:
            return ResendReason.RESTARTED
    quiet = now - max(progress.held_at, progress.back_at, answered_at)
    doublings = min(max(entry.sends - 1, 0), _MAX_DOUBLINGS)
    return ResendReason.STALLED if quiet > policy.stall_seconds * 2**doublings else None


def poll_seconds(before: float, policy: ConfirmationPolicy, *, found: bool) -> float:
    """Seconds until the next question: short while rows are found, else twice the last pause."""
    return policy.min_poll_seconds if found else min(before * 2, policy.max_poll_seconds)
