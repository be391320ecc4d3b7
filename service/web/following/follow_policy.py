"""How often followed events are looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FollowPolicy:
    """The pace of following.

    `look_seconds` is between two looks at the store, in reads of at most `rows_a_read` rows.
    `ask_seconds` is between two questions about the runs of one event, `trouble_seconds` after
    Inngest could not be asked; a first answer waits `first_ask_seconds` for it. At most
    `asks_a_second` questions are put, over all events.
    `beat_seconds` is between two comments on a silent stream; a stream ends after
    `stream_seconds`, and its client connects again. What nobody follows any more is remembered
    for `linger_seconds`.
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
