"""Counts of rows, kept by each statement's changes; no table is ever counted.

Every statement that changes a count adds a row to `outbox_changes` in its own commit. From time to
time one process folds the old ones into `outbox_counts` and `outbox_meta`. In every snapshot the
folded figures plus the changes above `changes_folded` are exact. The cost does not grow with
waiting, delivered or dead rows.
"""

from __future__ import annotations

from collections import Counter

from service.outbox.postgres.pool import PostgresPool

# Folds the changes that no open transaction can precede, and removes those of the fold before. Of
# two processes at once one finds `changes_folded` moved and changes nothing.
FOLD = """
WITH meta AS MATERIALIZED (
    SELECT changes_folded, changes_trimmed, safe_change FROM outbox_meta, outbox_mark
    WHERE safe_change > changes_folded
), folded AS MATERIALIZED (
    SELECT owners, pending, delivered, dead, sent FROM outbox_changes, meta
    WHERE no > changes_folded AND no <= safe_change
), moved AS (
    UPDATE outbox_meta SET changes_folded = meta.safe_change, changes_trimmed = meta.changes_folded,
        pending = outbox_meta.pending + (
            SELECT coalesce(sum(rows), 0) FROM folded f, unnest(f.pending) AS rows),
        delivered = delivered + (SELECT coalesce(sum(f.delivered), 0) FROM folded f),
        dead = dead + (SELECT coalesce(sum(f.dead), 0) FROM folded f),
        sent = sent + (SELECT coalesce(sum(f.sent), 0) FROM folded f)
    FROM meta WHERE outbox_meta.changes_folded = meta.changes_folded
    RETURNING meta.changes_folded AS trim_to, meta.changes_trimmed AS trimmed
), by_owner AS MATERIALIZED (
    SELECT owner, sum(rows)::bigint AS rows
    FROM moved, folded, unnest(owners, pending) AS u(owner, rows)
    GROUP BY owner HAVING sum(rows) <> 0
), now AS MATERIALIZED (
    SELECT owner, coalesce(c.pending, 0) + rows AS pending
    FROM by_owner LEFT JOIN LATERAL (
        SELECT pending FROM outbox_counts WHERE outbox_counts.owner = by_owner.owner OFFSET 0
    ) AS c ON true
), put AS (
    INSERT INTO outbox_counts (owner, pending)
    SELECT owner, pending FROM now WHERE pending <> 0
    ON CONFLICT (owner) DO UPDATE SET pending = excluded.pending
), gone AS (
    DELETE FROM outbox_counts WHERE owner = ANY(ARRAY(SELECT owner FROM now WHERE pending = 0))
), trimmed AS (
    DELETE FROM outbox_changes USING moved WHERE no > trimmed AND no <= trim_to
)
SELECT count(*) FROM moved
"""

# The folded counts and the change that they reach to.
READ_FOLDED = """
SELECT changes_folded, array_agg(owner) FILTER (WHERE owner IS NOT NULL),
       array_agg(outbox_counts.pending) FILTER (WHERE owner IS NOT NULL)
FROM outbox_meta LEFT JOIN outbox_counts ON true GROUP BY changes_folded
"""

# What changed after a change, by owner: first what no open transaction can precede, then the rest.
# The last column is whether the reader has all: the changes that it lacks are not yet removed.
READ_CHANGES = """
SELECT m.safe_change, c.no <= m.safe_change, owner, sum(rows)::bigint,
       changes_trimmed <= %(after)s
FROM outbox_mark AS m CROSS JOIN outbox_meta LEFT JOIN (
    outbox_changes AS c CROSS JOIN LATERAL unnest(owners, c.pending) AS u(owner, rows)
) ON c.no > %(after)s
GROUP BY m.safe_change, c.no <= m.safe_change, owner, changes_trimmed
"""

# Exact figures of the whole outbox, and of the rows delivered or sent within the last seconds.
READ_TOTALS = """
SELECT m.delivered + coalesce(sum(c.delivered), 0)::bigint,
       m.dead + coalesce(sum(c.dead), 0)::bigint,
       m.sent + coalesce(sum(c.sent), 0)::bigint,
       coalesce(sum(c.delivered + c.sent) FILTER (WHERE
           changed_at > statement_timestamp() - make_interval(secs => %(seconds)s)), 0)::bigint
FROM outbox_meta AS m LEFT JOIN outbox_changes AS c ON c.no > m.changes_folded
GROUP BY m.delivered, m.dead, m.sent
"""

# Puts right what the counts say of pending rows: the difference becomes a change.
RECOUNT = """
WITH real AS (
    SELECT owner, count(*) AS rows FROM (
        SELECT seq FROM outbox_ready
        UNION ALL SELECT unnest(seqs) FROM outbox_claims
    ) AS waiting CROSS JOIN LATERAL (
        SELECT owner FROM outbox WHERE outbox.seq = waiting.seq OFFSET 0) AS o
    GROUP BY owner
), said AS (
    SELECT owner, sum(rows)::bigint AS rows FROM (
        SELECT owner, pending AS rows FROM outbox_counts
        UNION ALL
        SELECT u.owner, u.rows
        FROM outbox_meta, outbox_changes AS c, unnest(owners, c.pending) AS u(owner, rows)
        WHERE no > changes_folded
    ) AS told GROUP BY owner
), wrong AS (
    SELECT owner, coalesce(real.rows, 0) - coalesce(said.rows, 0) AS rows
    FROM real FULL JOIN said USING (owner)
    WHERE coalesce(real.rows, 0) <> coalesce(said.rows, 0)
), done AS (
    SELECT count(*) FILTER (WHERE NOT dead) AS delivered, count(*) FILTER (WHERE dead) AS dead
    FROM outbox_done
), totals AS (
    SELECT m.delivered + coalesce(sum(c.delivered), 0)::bigint AS delivered,
           m.dead + coalesce(sum(c.dead), 0)::bigint AS dead,
           m.sent + coalesce(sum(c.sent), 0)::bigint AS sent
    FROM outbox_meta AS m LEFT JOIN outbox_changes AS c ON c.no > m.changes_folded
    GROUP BY m.delivered, m.dead, m.sent
), corrected AS (
    INSERT INTO outbox_changes (owners, pending, delivered, dead, sent)
    SELECT coalesce((SELECT array_agg(owner) FROM wrong), '{}'),
           coalesce((SELECT array_agg(rows) FROM wrong), '{}'),
           done.delivered - totals.delivered, done.dead - totals.dead,
           (SELECT count(*) FROM outbox_sent) - totals.sent
    FROM done, totals
)
SELECT count(*) FROM wrong
"""


class PostgresCounts:
    """Pending rows by owner, as of the last read, which reads only the changes."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._after: int | None = None
        self._base: Counter[str] = Counter()
        self._rest: Counter[str] = Counter()
        self._base_total = self._rest_total = 0

    @property
    def total(self) -> int:
        """How many rows are pending or delivering."""
        return self._base_total + self._rest_total

    def of(self, owner: str) -> int:
        """How many of this owner's rows are pending or delivering."""
        return self._base[owner] + self._rest[owner]

    async def read(self, within_seconds: float) -> None:
        """Bring the counts up to date. Raises OutboxUnavailableError."""
        if self._after is None:
            await self._read_folded(within_seconds)
        given = {"after": self._after}
        rows = await self._pool.run(READ_CHANGES, given, within_seconds=within_seconds)
        if not all(row[-1] for row in rows):
            self._after = None
            await self.read(within_seconds)
            return
        self._rest.clear()
        for _, is_safe, owner, count, _ in rows:
            if owner is not None:
                (self._base if is_safe else self._rest)[owner] += count
                if not self._base[owner]:
                    del self._base[owner]
        self._after = max(self._after or 0, rows[0][0])
        self._base_total, self._rest_total = self._base.total(), self._rest.total()

    async def _read_folded(self, within_seconds: float) -> None:
        rows = await self._pool.run(READ_FOLDED, within_seconds=within_seconds)
        self._after, owners, counts = rows[0]
        self._base = Counter(dict(zip(owners or (), counts or (), strict=True)))
