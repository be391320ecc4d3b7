"""Counts of rows and bytes, kept by each statement; no table is ever counted.

Every statement that changes a count adds a row to `outbox_changes` in its own commit. From time to
time one process folds the old ones into `outbox_carried`, `outbox_counts` and `outbox_meta`. In
every snapshot the folded figures plus the changes above `changes_folded` are exact. The cost does
not grow with waiting, delivered or dead rows.
"""

from __future__ import annotations

from typing import Self

import msgspec

from service.outbox.fair_share import FairShare
from service.outbox.limits import Held
from service.outbox.postgres.pool import PostgresPool
from service.outbox.postgres.tally import Tally

# The folded counts and the change that they reach to.
READ_FOLDED = """
SELECT changes_folded, owner, sum(c.pending)::bigint, sum(c.stored_bytes)::bigint
FROM outbox_meta LEFT JOIN outbox_by_owner AS c ON true
GROUP BY changes_folded, owner
"""

# The changes after a given one, by owner: first those that no open transaction can precede. Then
# whether the reader has all (the changes that it lacks are not yet removed), and the snapshot.
READ_CHANGES = """
SELECT m.safe_change, c.no <= m.safe_change, owner, coalesce(sum(u.pending), 0)::bigint,
       coalesce(sum(u.bytes), 0)::bigint, changes_trimmed <= %(after)s,
       pg_current_snapshot()::text
FROM outbox_mark AS m CROSS JOIN outbox_meta LEFT JOIN (
    outbox_changes AS c CROSS JOIN LATERAL unnest(owners, c.pending, c.stored_bytes)
        AS u(owner, pending, bytes)
) ON c.no > %(after)s
GROUP BY m.safe_change, c.no <= m.safe_change, owner, changes_trimmed
"""

# Exact figures of the whole outbox, and how many rows were delivered or sent in the last seconds.
READ_TOTALS = """
SELECT m.delivered + coalesce(sum(c.delivered), 0)::bigint AS delivered,
       m.dead + coalesce(sum(c.dead), 0)::bigint AS dead,
       m.sent + coalesce(sum(c.sent), 0)::bigint AS sent,
       coalesce(sum(c.delivered + c.sent) FILTER (WHERE
           changed_at > statement_timestamp() - make_interval(secs => %(seconds)s)), 0)::bigint
           AS lately
FROM outbox_meta AS m LEFT JOIN outbox_changes AS c ON c.no > m.changes_folded
GROUP BY m.delivered, m.dead, m.sent
"""


class Snapshot(msgspec.Struct, frozen=True):
    """Which of the transactions that have committed a statement sees: not those under way then."""

    next: int
    under_way: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text of a pg_snapshot.

        >>> Snapshot.parse("10:20:10,14")
        Snapshot(next=20, under_way=frozenset({10, 14}))
        """
        _, after, under_way = text.split(":")
        return cls(int(after), frozenset(int(one) for one in under_way.split(",") if one))

    def shows(self, transaction: int) -> bool:
        """Whether it shows what a transaction that has committed did."""
        return transaction < self.next and transaction not in self.under_way


class PostgresCounts:
    """What each owner holds, as of the last read, which reads only the changes."""

    def __init__(self, pool: PostgresPool, fair_share: FairShare) -> None:
        self._pool = pool
        self._heavy_rows = fair_share.heavy_rows
        self._after: int | None = None
        self._returns = pool.returns
        self._base = Tally()
        self._rest = Tally()
        # Owners with so many waiting rows that they may fill the queue.
        self.heavy: set[str] = set()

    @property
    def total(self) -> Held:
        """How many rows are pending or delivering, and how many bytes are stored."""
        return self._base.rows + self._rest.rows, self._base.bytes + self._rest.bytes

    def of(self, owner: str) -> Held:
        """How many rows of `owner` are pending or delivering, and its stored bytes."""
        rows, size = self._base.of(owner)
        more_rows, more_size = self._rest.of(owner)
        return rows + more_rows, size + more_size

    async def read(self, within_seconds: float) -> Snapshot:
        """Bring the counts up to date, and return what they show. Raises OutboxUnavailableError."""
        if self._returns != self._pool.returns:
            self._returns, self._after = self._pool.returns, None
        base, after = self._base, self._after
        if after is None:
            base, after = await self._read_folded(within_seconds)
        rows = await self._pool.run(READ_CHANGES, {"after": after}, within_seconds=within_seconds)
        *_, is_whole, snapshot = rows[0]
        if not is_whole:
            self._after = None
            return await self.read(within_seconds)
        changed = self._rest.owners()
        if base is not self._base:
            changed |= base.owners() | self.heavy
        self._base, self._rest = base, Tally()
        for _, is_safe, owner, waiting, size, *_ in rows:
            if owner is not None:
                (self._base if is_safe else self._rest).add(owner, waiting, size)
                changed.add(owner)
        self._after = max(after, rows[0][0])
        self._weigh(changed)
        return Snapshot.parse(snapshot)

    async def _read_folded(self, within_seconds: float) -> tuple[Tally, int]:
        rows = await self._pool.run(READ_FOLDED, within_seconds=within_seconds)
        held = {row[1]: (row[2], row[3]) for row in rows if row[1] is not None}
        return Tally(held), rows[0][0]

    def _weigh(self, owners: set[str]) -> None:
        heavy = {owner for owner in owners if self.of(owner)[0] >= self._heavy_rows}
        self.heavy = (self.heavy - owners) | heavy
