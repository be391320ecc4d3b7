"""Positions among the rows of an SQLite outbox: where a bounded look ends, where a moment is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from service.errors import OutboxUnavailableError
from service.outbox.model import State
from service.outbox.reach import Reach
from service.outbox.sqlite.faults import is_damage
from service.outbox.sqlite.reader import Reads
from service.outbox.sqlite.rows import PAST_ALL, PLACES

T = TypeVar("T")

REACH: dict[State | None, str] = {
    state: f"""
SELECT seq, (SELECT accepted_at_ms FROM outbox WHERE outbox.seq = place.seq)
FROM {place} AS place WHERE seq < :before ORDER BY seq DESC LIMIT 1 OFFSET :skipped
"""
    for state, place in ((None, "(SELECT seq FROM outbox)"), *PLACES.items())
}

REACH_OF_OWNER = """
SELECT seq, accepted_at_ms FROM outbox WHERE owner = :owner AND seq < :before
ORDER BY seq DESC LIMIT 1 OFFSET :skipped
"""

ENDS = """
SELECT coalesce((SELECT min(seq) FROM outbox), 0), coalesce((SELECT max(seq) FROM outbox), 0) + 1
"""
ACCEPTED_FROM = "SELECT accepted_at_ms FROM outbox WHERE seq >= :seq ORDER BY seq LIMIT 1"


class SqlitePositions:
    """Looks through a connection that reads."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def reach(
        self,
        state: State | None,
        window: int,
        before_seq: int | None = None,
        owner: str | None = None,
    ) -> Reach | None:
        """The last of the newest `window` rows in this state or of this owner; None when fewer.

        None too in a damaged file: its rows are read one by one.
        """
        before = PAST_ALL if before_seq is None else before_seq
        given = {"skipped": window - 1, "before": before, "owner": owner}
        statement = REACH[state] if owner is None else REACH_OF_OWNER
        none: list[tuple[Any, ...]] = []
        rows = await self._look(none, _fetch, statement, given)
        return Reach(*rows[0]) if rows else None

    async def seq_at(self, at_ms: int) -> int:
        """The number below which rows were accepted before `at_ms`."""
        return await self._look(PAST_ALL, _seq_at, at_ms)

    async def _look(self, in_damage: T, work: Callable[..., T], *args: object) -> T:
        try:
            return await self._reads.run(work, *args)
        except OutboxUnavailableError as error:
            if not is_damage(error):
                raise
            return in_damage


def _fetch(
    connection: sqlite3.Connection, statement: str, given: dict[str, Any]
) -> list[tuple[Any, ...]]:
    return connection.execute(statement, given).fetchall()


def _seq_at(connection: sqlite3.Connection, at_ms: int) -> int:
    """Halves the numbers until one is left."""
    [(low, high)] = _fetch(connection, ENDS, {})
    while low < high:
        middle = (low + high) // 2
        rows = _fetch(connection, ACCEPTED_FROM, {"seq": middle})
        if rows and rows[0][0] < at_ms:
            low = middle + 1
        else:
            high = middle
    return int(low)
