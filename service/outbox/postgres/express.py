"""Express rows: those of owners with few waiting rows while another owner's rows fill the queue."""

from __future__ import annotations


class ExpressRows:
    """Remembers whether express rows may wait, so that claims search for them only then."""

    def __init__(self) -> None:
        self.may_wait = True
        self._stored = 0
        self._turn = False

    def stored(self) -> None:
        """Note that express rows may have been stored, or put back."""
        self._stored += 1
        self.may_wait = True

    def look_begins(self) -> int:
        """A value for `look_ended`."""
        return self._stored

    def look_ended(self, begun: int, *, found: bool) -> None:
        """Note what a search of the table found; it may have missed rows stored meanwhile."""
        if found or begun == self._stored:
            self.may_wait = found

    def is_their_turn(self) -> bool:
        """Whether a claim without room for both takes the express row; every second one does."""
        self._turn = not self._turn
        return self._turn
