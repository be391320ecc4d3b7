-- name: STATS
-- The figures and the delivery record of one moment; none is counted from a table of events. The
-- counts have pending and delivering rows together; claimed rows are few and are counted here. The
-- oldest delayed row is searched among the first by due time; it waits from its time on.
WITH held AS MATERIALIZED (SELECT seq FROM outbox.claimed
), waiting AS MATERIALIZED (
    SELECT count(*) AS rows, min(accepted_at_ms) AS oldest FROM outbox.arrived
), delayed AS MATERIALIZED (
    (SELECT seq, due_at FROM outbox.delayed ORDER BY due_at LIMIT 1000)
    UNION ALL (SELECT seq, due_at FROM outbox.isolated ORDER BY due_at LIMIT 1000)
), soon AS (SELECT * FROM delayed, outbox.moment WHERE due_at <= at + %(soon_ms)s * interval '1 ms'
), fresh AS MATERIALIZED (SELECT seq FROM outbox.fresh ORDER BY seq LIMIT 1
)
SELECT t.delivered, t.dead, t.sent, t.pending + waiting.rows, (SELECT count(*) FROM held),
       at_ms - least(waiting.oldest, (SELECT min(accepted_at_ms) FROM outbox.events WHERE seq IN (
           (SELECT seq FROM fresh), (SELECT min(seq) FROM delayed), (SELECT min(seq) FROM held)))),
       at_ms - least(waiting.oldest, (
           SELECT min(greatest(accepted_at_ms, (meta ->> 'due_at_ms')::bigint)) FROM outbox.events
           WHERE seq IN ((SELECT seq FROM fresh), (SELECT min(seq) FROM soon),
               (SELECT seq FROM soon ORDER BY due_at LIMIT 1), (SELECT min(seq) FROM held)))),
       (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
        WHERE relkind = 'r' AND relnamespace = (
            SELECT relnamespace FROM pg_class WHERE oid = 'outbox.events'::regclass)),
       t.rate, d.*
FROM outbox.current_totals AS t, outbox.moment, waiting, outbox.delivery_record AS d

-- name: PAYLOAD
SELECT payload FROM outbox.events WHERE event_id = %(id)s

-- name: OWNERS
-- Who holds the most bytes.
SELECT owner, sum(stored)::bigint, sum(bytes)::bigint FROM outbox.current_counts
GROUP BY owner HAVING sum(stored) > 0 ORDER BY 3 DESC, owner LIMIT %(limit)s

-- name: DEAD_GROUPS
-- The newest dead rows by name and reason.
SELECT e.name, coalesce(d.reason, ''), count(*), max(d.settled_at_ms),
       coalesce((array_agg(d.detail ORDER BY d.settled_at_ms DESC))[1], '')
FROM (SELECT seq, reason, detail, settled_at_ms FROM outbox.done WHERE dead
      ORDER BY seq DESC LIMIT %(limit)s) AS d JOIN outbox.events AS e USING (seq)
GROUP BY 1, 2 ORDER BY 3 DESC, 4 DESC

-- name: AUDIT
-- The newest acts, then all of their rows.
WITH newest AS (
    SELECT act, max(id) AS last FROM outbox.audit
    WHERE %(event)s::text IS NULL OR strpos(ids, %(event)s) > 0
    GROUP BY act ORDER BY last DESC LIMIT %(limit)s
)
SELECT act, at_ms, actor, action, detail, ids
FROM newest JOIN outbox.audit USING (act) ORDER BY last DESC, id

-- name: READ_COUNTS
-- The folded counts by owner, and the change that they reach to.
SELECT folded, owner, c.pending, c.stored_bytes
FROM outbox.totals LEFT JOIN outbox.counts AS c ON true

-- name: READ_CHANGES
-- The changes after a given one, by owner: first those that no open transaction can precede. Then
-- whether the reader has all, since no change that it lacks is folded.
SELECT m.safe_change, c.no <= m.safe_change, owner, coalesce(sum(u.pending), 0)::bigint,
       coalesce(sum(u.bytes), 0)::bigint, folded <= %(after)s
FROM outbox.mark AS m CROSS JOIN outbox.totals LEFT JOIN (
    outbox.changes AS c CROSS JOIN LATERAL unnest(owners, c.pending, c.stored_bytes)
        AS u(owner, pending, bytes)
) ON c.no > %(after)s
GROUP BY 1, 2, 3, 6
