"""Positions among the rows on PostgreSQL: where a bounded look ends, where a moment is."""

from __future__ import annotations

from typing import LiteralString

from service.outbox.model import State
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.rows import PLACES
from service.outbox.reach import Reach

# Where the rows of a state are in the order of seq. A look at pending rows steps over dead ones.
_IN_ORDER: tuple[tuple[State | None, LiteralString], ...] = (
    *PLACES.items(),
    (None, "SELECT seq FROM outbox"),
    (State.PENDING, "SELECT seq FROM outbox_ready"),
)

REACH: dict[State | None, LiteralString] = {
    state: f"""
SELECT p.seq, (SELECT accepted_at_ms FROM outbox WHERE outbox.seq = p.seq) FROM (
    SELECT seq FROM ({place}) AS p
    WHERE (%(before_seq)s::bigint IS NULL OR p.seq < %(before_seq)s)
    ORDER BY seq DESC LIMIT 1 OFFSET %(skipped)s
) AS p
"""
    for state, place in _IN_ORDER
}

# Halves the numbers until one is left.
SEQ_AT = """
WITH RECURSIVE halved (low, high) AS (
    SELECT coalesce((SELECT min(seq) FROM outbox), 0),
           coalesce((SELECT max(seq) FROM outbox), 0) + 1
    UNION ALL
    SELECT CASE WHEN is_before THEN middle + 1 ELSE low END,
           CASE WHEN is_before THEN high ELSE middle END
    FROM (
        SELECT low, high, (low + high) / 2 AS middle, coalesce(
            (SELECT accepted_at_ms FROM outbox WHERE seq >= (low + high) / 2 ORDER BY seq LIMIT 1)
            < %(at_ms)s, false) AS is_before
        FROM halved WHERE low < high
    ) AS step
)
SELECT low FROM halved WHERE low >= high
"""


class PostgresPositions:
    """Looks through the pool."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def reach(
        self, state: State | None, window: int, before_seq: int | None = None
    ) -> Reach | None:
        """The last of the newest `window` rows in this state, None when there are fewer."""
        given = {"skipped": window - 1, "before_seq": before_seq}
        rows = await self._pool.ask(REACH[state], given)
        return Reach(*rows[0]) if rows else None

    async def seq_at(self, at_ms: int) -> int:
        """The number below which rows were accepted before `at_ms`."""
        rows = await self._pool.ask(SEQ_AT, {"at_ms": at_ms})
        return int(rows[0][0])
