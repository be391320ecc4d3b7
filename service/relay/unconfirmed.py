"""How many events Inngest has answered and is not known to hold.

Inngest keeps them in memory until it stores them. The invariant: at most `max_events` are sent
ahead of its store, and a share of them is kept for fresh events.
"""

from __future__ import annotations

from collections.abc import Callable

_FRESH_SHARE = 0.1


class Unconfirmed:
    """The count of unconfirmed events, and how many more may be sent.

    `on_sent` is called when events were answered, `on_room` when the room grew.
    """

    def __init__(self, max_events: int) -> None:
        self.max_events = max_events
        self.count = 0
        self.on_sent: Callable[[], None] = lambda: None
        self.on_room: Callable[[], None] = lambda: None

    def room(self, in_flight: int) -> int:
        """How many more events may be sent while `in_flight` wait for their answer."""
        return max(0, self.max_events - self.count - in_flight)

    def only_fresh(self, in_flight: int) -> bool:
        """Whether only fresh events may still be sent."""
        return self.room(in_flight) <= self.max_events * _FRESH_SHARE

    def sent(self, events: int) -> None:
        """Count events that Inngest has answered."""
        self.count += events
        if events:
            self.on_sent()

    def recount(self, events: int) -> None:
        """Replace the count by the store's."""
        grown = events < self.count
        self.count = events
        if grown:
            self.on_room()
