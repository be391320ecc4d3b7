"""Express rows: those of owners who have few waiting while another owner's rows fill the queue."""

from __future__ import annotations


class ExpressRows:
    """Remembers whether any may wait, so that claims look for them only then."""

    def __init__(self) -> None:
        self.may_wait = True
        self._stored = 0
        self._turn = False

    def stored(self) -> None:
        """Some were stored."""
        self._stored += 1
        self.may_wait = True

    def look_begins(self) -> int:
        """What `look_ended` wants to know."""
        return self._stored

    def look_ended(self, begun: int, *, found: bool) -> None:
        """Note what a look at the table found; it may have missed what was stored meanwhile."""
        if found or begun == self._stored:
            self.may_wait = found

    def is_their_turn(self) -> bool:
        """Whether a claim that has no room for both takes an express row; every other one does."""
        self._turn = not self._turn
        return self._turn
