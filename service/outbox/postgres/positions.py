"""Positions among the rows on PostgreSQL: where a bounded look ends, where a moment is."""

from __future__ import annotations

from typing import LiteralString

from service.outbox.model import State
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.rows import PLACES
from service.outbox.reach import Reach

# How many numbers a look at pending rows goes through at most: those of dead rows count too.
MAX_NUMBERS = 100_000

_BEFORE = "(%(before_seq)s::bigint IS NULL OR seq < %(before_seq)s)"

# Pending rows that are no more than the window are found by the marks, unless new ones are among
# many numbers. Rows of the delayed lanes are counted whatever their number: it bounds no read.
REACH_PENDING = f"""
WITH mark AS MATERIALIZED (TABLE outbox_mark), ends AS MATERIALIZED (
    SELECT (SELECT seq FROM outbox ORDER BY seq LIMIT 1) AS lowest,
           (SELECT seq FROM outbox WHERE {_BEFORE} ORDER BY seq DESC LIMIT 1) AS highest
), few AS MATERIALIZED (
    SELECT count(*) <= %(skipped)s AND coalesce(
               (SELECT highest - ready_from < %(numbers)s FROM ends, mark), true) AS are_few
    FROM (
        (SELECT FROM outbox_ready
         WHERE due_at IS NULL AND seq >= (SELECT ready_from FROM mark)
           AND seq < (SELECT ready_from FROM mark) + %(numbers)s AND {_BEFORE}
         LIMIT %(skipped)s + 1)
        UNION ALL
        (SELECT FROM outbox_ready WHERE due_at IS NOT NULL AND NOT isolated
             AND due_at >= (SELECT due_from FROM mark) LIMIT %(skipped)s + 1)
        UNION ALL
        (SELECT FROM outbox_ready WHERE due_at IS NOT NULL AND isolated
             AND due_at >= (SELECT isolated_from FROM mark) LIMIT %(skipped)s + 1)
        LIMIT %(skipped)s + 1
    ) AS waiting
), reached AS MATERIALIZED (
    SELECT coalesce(
        (SELECT seq FROM outbox_ready
         WHERE seq <= (SELECT highest FROM ends)
           AND seq > (SELECT highest FROM ends) - %(numbers)s
         ORDER BY seq DESC LIMIT 1 OFFSET %(skipped)s),
        greatest(lowest, highest - %(numbers)s + 1)) AS seq
    FROM ends WHERE NOT (SELECT are_few FROM few)
)
SELECT seq,
       (SELECT accepted_at_ms FROM outbox WHERE outbox.seq >= reached.seq ORDER BY seq LIMIT 1),
       seq <= (SELECT lowest FROM ends)
FROM reached
"""


def _last_of(place: LiteralString) -> LiteralString:
    """What finds the last of the newest rows of a place, in the order of seq."""
    return f"""
SELECT p.seq, (SELECT accepted_at_ms FROM outbox WHERE outbox.seq = p.seq) FROM (
    SELECT seq FROM ({place}) AS p WHERE {_BEFORE}
    ORDER BY seq DESC LIMIT 1 OFFSET %(skipped)s
) AS p
"""


REACH: dict[State | None, LiteralString] = {
    **{state: _last_of(place) for state, place in PLACES.items()},
    State.PENDING: REACH_PENDING,
    None: _last_of("SELECT seq FROM outbox"),
}
REACH_OF_OWNER = _last_of("SELECT seq FROM outbox WHERE owner = %(owner)s AND seq > -1")

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
        self,
        state: State | None,
        window: int,
        before_seq: int | None = None,
        owner: str | None = None,
    ) -> Reach | None:
        """The last of the newest `window` rows in this state or of this owner; None when fewer."""
        given = {
            "skipped": window - 1,
            "before_seq": before_seq,
            "owner": owner,
            "numbers": MAX_NUMBERS,
        }
        statement = REACH[state] if owner is None else REACH_OF_OWNER
        rows = await self._pool.ask(statement, given)
        return Reach(*rows[0]) if rows else None

    async def seq_at(self, at_ms: int) -> int:
        """The number below which rows were accepted before `at_ms`."""
        rows = await self._pool.ask(SEQ_AT, {"at_ms": at_ms})
        return int(rows[0][0])
