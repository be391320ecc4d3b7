-- name: LOOK
-- Makes the next watermarks unless some were made within the interval. The three steps of a position,
-- drawn, watched and safe, are in three statements because a statement's snapshot may be older than
-- the locks that it sees. When the clock was set back, the watermarks of time go back, leases begin
-- again, and a row waits for what was left of its delay; one that its sender delays keeps its time. A
-- crash skips up to 32 numbers. Returns whether a lease is over.
WITH due AS MATERIALIZED (
    SELECT mark.*, made_at > now.at + interval '1 second' AS turned_back, now.*
    FROM outbox.mark, (SELECT clock_timestamp() AS at, drawn.* FROM outbox.drawn) AS now
), step AS MATERIALIZED (
    SELECT due.*, w.held, due.writers && w.held AS blocked, w.held = '{}' AS quiet, low.*
    FROM due, outbox.writers AS w, outbox.lowest AS low
    WHERE turned_back OR made_at <= at - interval '10 seconds'
       OR made_at <= at - make_interval(secs => %(interval_seconds)s)
          AND (ready_from, safe_change) <> (seq + 1, change)
), made AS (
    INSERT INTO outbox.watermarks (made_at, ready_from, due_from, isolated_from, lease_from, sent_from,
        drawn_seq, drawn_change, watched_seq, watched_change, watched_at, writers,
        safe_seq, safe_change, safe_at)
    SELECT at, greatest(ready_from, least(safe_seq + 1, fresh)),
           CASE WHEN turned_back THEN '-infinity' ELSE greatest(due_from, least(past, delayed)) END,
           CASE WHEN turned_back THEN '-infinity' ELSE greatest(isolated_from, least(past, isolated)) END,
           CASE WHEN turned_back THEN '-infinity' ELSE greatest(lease_from, least(past, lease)) END,
           CASE WHEN turned_back OR safe_at = '-infinity' THEN 0 ELSE
               greatest(sent_from, least(floor(extract(epoch FROM past) * 1000)::bigint, sent)) END,
           seq, change, CASE WHEN blocked THEN watched_seq ELSE drawn_seq END,
           CASE WHEN blocked THEN watched_change ELSE drawn_change END,
           CASE WHEN turned_back THEN '-infinity' WHEN blocked THEN watched_at ELSE made_at END,
           CASE WHEN blocked THEN ARRAY(SELECT unnest(writers) INTERSECT SELECT unnest(held)) ELSE held END,
           CASE WHEN quiet THEN drawn_seq WHEN blocked THEN safe_seq ELSE watched_seq END,
           CASE WHEN quiet THEN drawn_change WHEN blocked THEN safe_change ELSE watched_change END,
           CASE WHEN turned_back THEN '-infinity' WHEN quiet THEN made_at
                WHEN blocked THEN safe_at ELSE watched_at END
    FROM (SELECT *, safe_at - interval '2 seconds' AS past FROM step) AS s RETURNING no
), back AS (
    SELECT at, floor(extract(epoch FROM at) * 1000)::bigint AS at_ms, made_at FROM due
), leased AS (
    UPDATE outbox.claims SET claimed_at_ms = at_ms,
        lease_until = at + (lease_until - to_timestamp(claimed_at_ms / 1000.0))
    FROM back WHERE (SELECT turned_back FROM due) AND claimed_at_ms > at_ms
), delayed AS (
    UPDATE outbox.ready SET due_at = at + greatest(due_at - made_at, interval '0')
    FROM back WHERE (SELECT turned_back FROM due) AND due_at > at
        AND (sends > 0 OR due_at <= made_at + interval '10 seconds')
), answered AS (
    UPDATE outbox.sent SET sent_at_ms = at_ms
    FROM back WHERE (SELECT turned_back FROM due) AND sent_at_ms > at_ms
), trimmed AS (
    DELETE FROM outbox.watermarks AS w USING made WHERE w.no <= made.no - 20 AND w.no > made.no - 80
)
SELECT EXISTS (SELECT FROM outbox.claims WHERE lease_until >= (SELECT lease_from FROM outbox.mark)
               AND lease_until <= statement_timestamp()),
       (SELECT set_config('synchronous_commit', 'off', true) FROM made)

-- name: FOLD
-- Adds changes that no open transaction can precede to the counts, those of some looks ago: processes
-- that read them since then have them. When two processes fold at once, the second does nothing.
WITH old AS MATERIALIZED (
    SELECT t.folded, w.safe_change FROM (SELECT * FROM outbox.totals FOR UPDATE SKIP LOCKED) AS t,
        outbox.watermarks AS w WHERE w.no = (SELECT no FROM outbox.mark) - 15 AND w.safe_change > t.folded
), gone AS (
    DELETE FROM outbox.changes
    WHERE no > (SELECT folded FROM old) AND no <= (SELECT safe_change FROM old) RETURNING *
), by_owner AS (
    SELECT u.owner, sum(coalesce(u.pending, 0)) AS pending, sum(coalesce(u.stored, 0)) AS stored,
           sum(coalesce(u.bytes, 0)) AS bytes
    FROM gone AS g CROSS JOIN LATERAL unnest(g.owners, g.pending, g.stored, g.stored_bytes)
        AS u(owner, pending, stored, bytes) GROUP BY owner
), counted AS (
    INSERT INTO outbox.counts AS c SELECT owner, pending, stored, bytes FROM by_owner ORDER BY owner
    ON CONFLICT (owner) DO UPDATE SET pending = c.pending + excluded.pending,
        stored = c.stored + excluded.stored, stored_bytes = c.stored_bytes + excluded.stored_bytes
)
UPDATE outbox.totals AS t SET folded = old.safe_change, pending = t.pending + g.pending,
    delivered = t.delivered + g.delivered, dead = t.dead + g.dead, sent = t.sent + g.sent
FROM old, (SELECT coalesce(sum(delivered), 0) AS delivered, coalesce(sum(dead), 0) AS dead,
                  coalesce(sum(sent), 0) AS sent,
                  coalesce((SELECT sum(pending) FROM by_owner), 0) AS pending FROM gone) AS g

-- name: FORGET_OWNERS
-- Removes the counts of owners that have nothing stored.
DELETE FROM outbox.counts WHERE pending = 0 AND stored = 0 AND stored_bytes = 0

-- name: RECOUNT
-- Counts every row anew, after rows were written past the counts; nobody serves the outbox.
WITH gone AS (
    DELETE FROM outbox.changes
), cleared AS (
    DELETE FROM outbox.counts
), counted AS (
    SELECT e.owner, count(r.seq) + count(c.seq) AS pending, count(*) AS stored,
           sum(octet_length(e.payload))::bigint AS bytes
    FROM outbox.events AS e LEFT JOIN outbox.ready AS r USING (seq)
    LEFT JOIN outbox.claimed AS c USING (seq) GROUP BY e.owner
), put AS (
    INSERT INTO outbox.changes (owners, pending, stored, stored_bytes)
    SELECT array_agg(owner), array_agg(pending), array_agg(stored), array_agg(bytes) FROM counted
    HAVING count(*) > 0
)
UPDATE outbox.totals SET pending = 0, sent = (SELECT count(*) FROM outbox.sent),
    delivered = (SELECT count(*) FROM outbox.done WHERE NOT dead),
    dead = (SELECT count(*) FROM outbox.done WHERE dead)
