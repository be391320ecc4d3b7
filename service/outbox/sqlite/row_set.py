"""Rows as the first parameter of a statement: a few ranges of seqs where they have few gaps.

SQLite walks a range at half the cost of a list that it has to read and to look up one by one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple, Self

import msgspec

_MAX_RANGES = 3  # the oldest rows, express ones and the newest
_encode = msgspec.json.Encoder().encode


class OfRows(NamedTuple):
    """A statement over rows in its two forms, for a list and for ranges."""

    listed: str
    ranged: str

    @classmethod
    def taking(cls, statement: str, table: str) -> Self:
        """The forms of a `statement` that takes `{rows}` of `table`.

        ?1 is a JSON array of seqs, or of pairs of the first and the last seq.
        """
        between = f"{table}.seq BETWEEN value ->> 0 AND value ->> 1"
        return cls(
            statement.format(rows=f"json_each(?1) CROSS JOIN {table} ON seq = value"),
            statement.format(rows=f"json_each(?1) CROSS JOIN {table} ON {between}"),
        )

    @classmethod
    def deleting(cls, statement: str) -> Self:
        """The forms of a DELETE of the rows where `{which}` is true.

        ?1 is a JSON array of seqs, or one pair of the first and the last seq.
        """
        return cls(
            statement.format(which="seq IN (SELECT value FROM json_each(?1))"),
            statement.format(which="seq BETWEEN ?1 ->> 0 AND ?1 ->> 1"),
        )


class RowSet(NamedTuple):
    """Some rows: the JSON of their ranges, or of their seqs where they have more gaps."""

    parameter: str
    ranges: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, seqs: Sequence[int]) -> Self:
        """The set of these rows.

        >>> RowSet.of([4, 5, 6, 9])
        RowSet(parameter='[[4,6],[9,9]]', ranges=[(4, 6), (9, 9)])
        >>> RowSet.of([1, 3, 5, 7])
        RowSet(parameter='[1,3,5,7]', ranges=())
        """
        ranges = _ranges(seqs)
        return cls(_encode(ranges or seqs).decode(), ranges)

    def execute(
        self, connection: sqlite3.Connection, statement: OfRows, *values: object
    ) -> sqlite3.Cursor:
        """Execute what `OfRows.taking` made, with more values after the rows."""
        text = statement.ranged if self.ranges else statement.listed
        return connection.execute(text, (self.parameter, *values))

    def delete(self, connection: sqlite3.Connection, statement: OfRows, *values: object) -> None:
        """Execute what `OfRows.deleting` made, with more values after the rows."""
        for pair in self.ranges:
            connection.execute(statement.ranged, (_encode(pair).decode(), *values))
        if not self.ranges:
            connection.execute(statement.listed, (self.parameter, *values))


def _ranges(seqs: Sequence[int]) -> Sequence[tuple[int, int]]:
    """The ranges of ascending seqs, none where there are many or the seqs do not ascend."""
    found: list[tuple[int, int]] = []
    first = last = seqs[0]
    for seq in seqs[1:]:
        if seq == last + 1:
            last = seq
            continue
        found.append((first, last))
        if seq < last or len(found) == _MAX_RANGES:
            return ()
        first = last = seq
    return [*found, (first, last)]
