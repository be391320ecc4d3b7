"""Rows that can't be read, or whose event is missing: found one by one, and set aside as dead.

A damaged page fails the transaction that reads it, so the rows of a failed claim are only marked as
doubtful. Before they are claimed again, each is read through a separate connection.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from service.outbox.sqlite.damage import Damage, is_unreadable

UNREADABLE = "unreadable"
READABLE = "SELECT event_id, name, owner, user_id, trace, payload FROM outbox WHERE seq = ?1"
OWNER = "SELECT owner FROM outbox WHERE seq = ?1"

# ?1 is a JSON array of seqs, ?2 now, ?3 the reason, ?4 the detail. Reads no row of outbox.
SET_ASIDE = """
INSERT INTO outbox_done (seq, dead, settled_at_ms, isolated, attempts, sends, reason, detail)
SELECT seq, 1, ?2, isolated, attempts, sends, ?3, ?4
FROM json_each(?1) CROSS JOIN outbox_ready ON seq = value
"""
SET_ASIDE_READY = "DELETE FROM outbox_ready WHERE seq IN (SELECT value FROM json_each(?1))"
_DETAIL = "The row can't be read. `outbox recover` copies what can be read to a new file."


class Salvage:
    """Tests the rows of failed claims of the outbox at `path`."""

    def __init__(self, path: Path, damage: Damage) -> None:
        self._path = path
        self._damage = damage
        self._doubted: set[int] = set()

    def doubt(self, seqs: Iterable[int], error: Exception) -> None:
        """Mark rows as doubtful if `error` came from their content."""
        if is_unreadable(error):
            self._damage.note(error)
            self._doubted.update(seqs)

    def unreadable(self, seqs: Sequence[int]) -> dict[int, str | None]:
        """Which of the doubtful rows can't be read, with their owners where those can be read."""
        doubted = [seq for seq in seqs if seq in self._doubted]
        if not doubted:
            return {}
        self._doubted.difference_update(doubted)
        address = f"file:{quote(str(self._path))}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as reading:
            bad = [seq for seq in doubted if not _is_readable(reading, seq)]
            return {seq: _owner(reading, seq) for seq in bad}


def set_aside(
    connection: sqlite3.Connection, bad: dict[int, str | None], now: int
) -> dict[int, str | None]:
    """Make pending rows dead; returns them."""
    seqs = msgspec.json.encode(list(bad)).decode()
    connection.execute(SET_ASIDE, (seqs, now, UNREADABLE, _DETAIL))
    connection.execute(SET_ASIDE_READY, (seqs,))
    return bad


def _is_readable(connection: sqlite3.Connection, seq: int) -> bool:
    try:
        return bool(connection.execute(READABLE, (seq,)).fetchall())
    except sqlite3.Error as error:
        if not is_unreadable(error):
            raise
        return False


def _owner(connection: sqlite3.Connection, seq: int) -> str | None:
    """The row's owner, None when that can't be read either."""
    try:
        [(owner,)] = connection.execute(OWNER, (seq,)).fetchall()
    except (sqlite3.Error, ValueError):
        return None
    return str(owner)
