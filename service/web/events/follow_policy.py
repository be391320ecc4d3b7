"""How often followed events are polled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FollowPolicy:
    """The intervals of following.

    The store is polled every `look_seconds`, at most `rows_a_read` rows at a time. Inngest is asked
    about the runs of an event every `ask_seconds`, or `trouble_seconds` after a failure, at most
    `asks_a_second` times for all events together. A first answer waits `first_ask_seconds` for the
    runs. A silent stream gets a comment every `beat_seconds`. A stream ends after `stream_seconds`,
    and its client reconnects. An event without followers is kept for `linger_seconds`.
    """

    look_seconds: float = 0.5
    rows_a_read: int = 500
    ask_seconds: float = 1.0
    trouble_seconds: float = 2.0
    first_ask_seconds: float = 1.0
    asks_a_second: int = 100
    beat_seconds: float = 15.0
    stream_seconds: float = 900.0
    linger_seconds: float = 2.0
    max_wait_seconds: int = 60
    max_followers: int = 20_000
