"""The positions (marks) at which reads of the outbox begin; they only move forward.

While any transaction of the server is open, dead rows stay in the tables and their indexes. So each
statement that looks for work begins at a mark below which there is no live row. A mark may pass a
position only after every transaction that could still put a row before it has ended. Such a
transaction holds a lock on a written table before it takes its position. So a look compares the
held locks with those of an earlier look.
"""

from __future__ import annotations

from service.outbox.postgres.express import ExpressRows
from service.outbox.postgres.pool import PostgresPool

# How many positions one look may pass, live or dead. It bounds the cost.
LOOK_WINDOW = 200_000

# Makes the next mark unless one was made within the interval. The three steps of a position, drawn,
# watched and safe, are in three statements because a statement's snapshot may be older than the
# locks that it sees. When the clock was set back, the marks of time go back. A sequence that was
# never called shows a number that it has not given yet. A mark is compared as a subquery: joined,
# it would bound no index scan. Between a closed partition and the next one (beyond) there are no
# seqs; nobody was writing when the first seq of the open one was given. A dead row between a mark
# and now may cost a page: those of about 3 seconds, and 60 marks. A crash skips up to 32 numbers.
LOOK = f"""
WITH mark AS MATERIALIZED (
    SELECT *, made_at > clock_timestamp() + interval '1 second' AS turned_back FROM outbox_mark
), drawn AS MATERIALIZED (
    SELECT clock_timestamp() AS at,
           (SELECT last_value - (NOT is_called)::integer FROM outbox_seq_seq) AS seq,
           (SELECT last_value - (NOT is_called)::integer FROM outbox_changes_no_seq) AS change
    FROM mark
), due AS MATERIALIZED (
    SELECT mark.* FROM mark, drawn
    WHERE turned_back OR made_at <= at - interval '10 seconds'
       OR made_at <= at - make_interval(secs => %(interval_seconds)s)
          AND (ready_from, safe_change) <> (drawn.seq + 1, drawn.change)
), held AS MATERIALIZED (
    SELECT coalesce(array_agg(DISTINCT virtualtransaction), '{{}}') AS writers
    FROM due, pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND relation IN ('outbox_ready'::regclass, 'outbox_claims'::regclass,
                       'outbox_sent'::regclass, 'outbox_changes'::regclass)
      AND pid IS DISTINCT FROM pg_backend_pid()
), step AS MATERIALIZED (
    SELECT held.writers, mark.writers && held.writers AS blocked, held.writers = '{{}}' AS quiet
    FROM due AS mark, held
), fresh AS MATERIALIZED (
    SELECT min(r.seq) AS seq FROM due, LATERAL (
        SELECT seq FROM outbox_ready
        WHERE seq >= due.ready_from AND seq < due.ready_from + {LOOK_WINDOW} AND due_at IS NULL
        ORDER BY seq LIMIT 1
    ) AS r
), beyond AS MATERIALIZED (
    SELECT min(first_seq) AS seq FROM due, outbox_partitions
    WHERE first_seq > ready_from AND NOT EXISTS (
        SELECT FROM outbox_partitions AS p
        WHERE p.first_seq <= ready_from AND (p.last_seq IS NULL OR p.last_seq >= ready_from))
), over AS MATERIALIZED (
    SELECT min(lease_until) AS lease_until FROM outbox_claims
    WHERE lease_until >= (SELECT lease_from FROM mark) AND lease_until <= statement_timestamp()
), made AS (
    INSERT INTO outbox_marks (made_at, ready_from, due_from, isolated_from, lease_from, sent_from,
        drawn_seq, drawn_change, watched_seq, watched_change, watched_at, writers,
        safe_seq, safe_change, safe_at)
    SELECT drawn.at,
           greatest(ready_from, least(
               greatest(safe_seq + 1, (SELECT max(first_seq) FROM outbox_partitions)),
               coalesce(fresh.seq, beyond.seq, ready_from + {LOOK_WINDOW}))),
           CASE WHEN turned_back THEN '-infinity' ELSE greatest(due_from, least(
               safe_at - interval '2 seconds',
               (SELECT min(due_at) FROM outbox_ready WHERE due_at IS NOT NULL AND NOT isolated
                    AND due_at >= due_from AND due_at <= statement_timestamp()))) END,
           CASE WHEN turned_back THEN '-infinity' ELSE greatest(isolated_from, least(
               safe_at - interval '2 seconds',
               (SELECT min(due_at) FROM outbox_ready WHERE due_at IS NOT NULL AND isolated
                    AND due_at >= isolated_from AND due_at <= statement_timestamp()))) END,
           CASE WHEN turned_back THEN '-infinity' ELSE greatest(lease_from, least(
               safe_at - interval '2 seconds', (SELECT lease_until FROM over))) END,
           CASE WHEN turned_back OR safe_at = '-infinity' THEN 0 ELSE greatest(sent_from, least(
               floor(extract(epoch FROM safe_at) * 1000)::bigint - 2000,
               (SELECT min(sent_at_ms) FROM outbox_sent WHERE sent_at_ms >= sent_from))) END,
           drawn.seq, drawn.change,
           CASE WHEN blocked THEN watched_seq ELSE drawn_seq END,
           CASE WHEN blocked THEN watched_change ELSE drawn_change END,
           CASE WHEN turned_back THEN '-infinity' WHEN blocked THEN watched_at ELSE made_at END,
           CASE WHEN blocked THEN ARRAY(SELECT unnest(mark.writers)
                                        INTERSECT SELECT unnest(step.writers))
                ELSE step.writers END,
           CASE WHEN quiet THEN drawn_seq WHEN blocked THEN safe_seq ELSE watched_seq END,
           CASE WHEN quiet THEN drawn_change WHEN blocked THEN safe_change
                ELSE watched_change END,
           CASE WHEN turned_back THEN '-infinity' WHEN quiet THEN made_at
                WHEN blocked THEN safe_at ELSE watched_at END
    FROM due AS mark, drawn, step, fresh, beyond
    RETURNING no
), trimmed AS (
    DELETE FROM outbox_marks USING made
    WHERE outbox_marks.no <= made.no - 20 AND outbox_marks.no > made.no - 80
), soon AS (
    SELECT set_config('synchronous_commit', 'off', true) FROM due
)
SELECT (SELECT lease_until IS NOT NULL FROM over),
       (SELECT express_seq FROM outbox_ready
        WHERE due_at IS NULL AND express_seq >= (SELECT ready_from FROM mark)
        ORDER BY express_seq LIMIT 1) IS NOT NULL
       OR (SELECT due_at FROM outbox_ready
           WHERE express_seq IS NOT NULL AND NOT isolated
             AND due_at >= (SELECT due_from FROM mark)
           ORDER BY due_at LIMIT 1) IS NOT NULL,
       (SELECT count(*) FROM made), (SELECT count(*) FROM soon)
"""


class PostgresMarks:
    """Moves the marks; any number of processes may do so."""

    def __init__(self, pool: PostgresPool, express: ExpressRows) -> None:
        self._pool = pool
        self._express = express

    async def look(self, interval_seconds: float) -> bool:
        """Make the next mark unless one was made within `interval_seconds`.

        Returns whether the lease of a claim is over.
        """
        begun = self._express.look_begins()
        rows = await self._pool.run(LOOK, {"interval_seconds": interval_seconds})
        leases_are_over, express_rows_wait, *_ = rows[0]
        self._express.look_ended(begun, found=express_rows_wait)
        return bool(leases_are_over)
