-- name: REPLAY
-- Dead rows become due with no attempts counted; delivered rows only when their state is named.
WITH named AS MATERIALIZED (
    SELECT seq, event_id, owner, octet_length(payload) AS size FROM outbox.events
    WHERE event_id = ANY(%(ids)s::text[]) AND (%(owner)s::text IS NULL OR owner = %(owner)s)
      AND payload <> ''
), taken AS (
    DELETE FROM outbox.done WHERE seq = ANY(ARRAY(SELECT seq FROM named))
        AND CASE WHEN dead THEN 'dead' ELSE 'delivered' END = coalesce(%(state)s::text, 'dead')
    RETURNING seq, sends, first_sent_at_ms, dead
), put AS (
    INSERT INTO outbox.ready (seq, due_at, first_sent_at_ms, sends, payload_bytes)
    SELECT seq, at, first_sent_at_ms, sends, size FROM taken JOIN named USING (seq), outbox.moment
), noted AS (
    INSERT INTO outbox.notes (seq, at_ms, note)
    SELECT seq, at_ms, 'replayed by ' || %(actor)s::text FROM taken, outbox.moment
), changed AS (
    INSERT INTO outbox.changes (owners, pending, delivered, dead)
    SELECT array_agg(owner), array_agg(rows), -sum(rows - dead), -sum(dead)
    FROM (SELECT owner, count(*) AS rows, count(*) FILTER (WHERE dead) AS dead
          FROM named JOIN taken USING (seq) GROUP BY owner) AS o
    HAVING count(*) > 0
), audited AS (
    INSERT INTO outbox.audit (act, at_ms, actor, action, detail, ids)
    SELECT %(act)s, (SELECT at_ms FROM outbox.moment), %(actor)s, 'replay', %(chosen)s,
           coalesce(json_agg(event_id ORDER BY seq DESC), '[]')::text FROM named JOIN taken USING (seq)
)
SELECT event_id FROM named JOIN taken USING (seq) ORDER BY seq DESC

-- name: DISCARD
-- Removes rows that are not under a claim.
WITH named AS MATERIALIZED (
    SELECT seq, event_id, owner, octet_length(payload) AS size FROM outbox.events
    WHERE event_id = ANY(%(ids)s::text[]) AND (%(owner)s::text IS NULL OR owner = %(owner)s)
), waiting AS (
    DELETE FROM outbox.ready WHERE seq = ANY(ARRAY(SELECT seq FROM named))
        AND coalesce(%(state)s::text, 'pending') = 'pending'
        AND (NOT %(never_sent)s::boolean OR sends = 0)
    RETURNING seq, 'pending' AS state
), answered AS (
    DELETE FROM outbox.sent WHERE seq = ANY(ARRAY(SELECT seq FROM named))
        AND coalesce(%(state)s::text, 'sent') = 'sent' AND NOT %(never_sent)s::boolean
    RETURNING seq, 'sent'
), settled AS (
    DELETE FROM outbox.done WHERE seq = ANY(ARRAY(SELECT seq FROM named)) AND NOT %(never_sent)s::boolean
        AND (%(state)s::text IS NULL OR CASE WHEN dead THEN 'dead' ELSE 'delivered' END = %(state)s)
    RETURNING seq, CASE WHEN dead THEN 'dead' ELSE 'delivered' END
), gone AS MATERIALIZED (
    SELECT named.*, state FROM named
    JOIN (TABLE waiting UNION ALL TABLE answered UNION ALL TABLE settled) AS g USING (seq)
), no_notes AS (DELETE FROM outbox.notes WHERE seq = ANY(ARRAY(SELECT seq FROM gone))
), no_event AS (DELETE FROM outbox.events WHERE seq = ANY(ARRAY(SELECT seq FROM gone))
), changed AS (
    INSERT INTO outbox.changes (owners, pending, stored, stored_bytes, delivered, dead, sent)
    SELECT array_agg(owner), array_agg(-(state = 'pending')::int), array_agg(-1), array_agg(-size),
           -count(*) FILTER (WHERE state = 'delivered'), -count(*) FILTER (WHERE state = 'dead'),
           -count(*) FILTER (WHERE state = 'sent') FROM gone HAVING count(*) > 0
), audited AS (
    INSERT INTO outbox.audit (act, at_ms, actor, action, detail, ids)
    SELECT %(act)s, (SELECT at_ms FROM outbox.moment), %(actor)s, 'discard', %(chosen)s,
           coalesce(json_agg(event_id ORDER BY seq DESC), '[]')::text FROM gone
)
SELECT event_id FROM gone ORDER BY seq DESC

-- name: PURGE
-- One page of delivered rows that were settled long enough ago, by the clocks of the database and of
-- the service, from where the page before ended.
WITH picked AS (
    DELETE FROM outbox.done WHERE seq = ANY(ARRAY(
        SELECT seq FROM outbox.done WHERE NOT dead AND settled_at_ms >= %(from_ms)s
            AND settled_at_ms <= least((SELECT at_ms FROM outbox.moment), %(now_ms)s::bigint)
                                 - %(older_than_ms)s::bigint
        ORDER BY settled_at_ms LIMIT %(page)s FOR UPDATE SKIP LOCKED)) RETURNING seq, settled_at_ms
), no_notes AS (DELETE FROM outbox.notes WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), gone AS (
    DELETE FROM outbox.events WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
    RETURNING owner, octet_length(payload) AS size
), changed AS (
    INSERT INTO outbox.changes (owners, stored, stored_bytes, delivered)
    SELECT array_agg(owner), array_agg(-stored), array_agg(-bytes), -(SELECT count(*) FROM picked)
    FROM (SELECT owner, count(*) AS stored, sum(size) AS bytes FROM gone GROUP BY owner) AS o
    HAVING count(*) > 0
)
SELECT count(*), max(settled_at_ms), count(*) < %(page)s FROM picked

-- name: PURGE_PAYLOADS
-- As PURGE, but the rows stay without their payloads. A window of about 5,000 rows is looked at, since
-- most may have lost theirs, again while a page of them is full. A clock that was set back begins again.
WITH until AS MATERIALIZED (
    SELECT least(at_ms, %(now_ms)s::bigint) - %(older_than_ms)s::bigint AS until_ms FROM outbox.moment
), begun AS MATERIALIZED (
    SELECT until_ms, CASE WHEN %(from_ms)s::bigint <= until_ms THEN %(from_ms)s::bigint ELSE 0 END AS from_ms
    FROM until
), looked AS MATERIALIZED (
    SELECT from_ms, until_ms, (
        SELECT settled_at_ms FROM outbox.done
        WHERE NOT dead AND settled_at_ms >= from_ms AND settled_at_ms <= until_ms
        ORDER BY settled_at_ms LIMIT 1 OFFSET 5000) AS end_ms
    FROM begun
), picked AS MATERIALIZED (
    SELECT d.seq, e.owner, e.size
    FROM outbox.done AS d CROSS JOIN LATERAL (
        SELECT owner, octet_length(payload) AS size FROM outbox.events
        WHERE events.seq = d.seq AND payload <> '' OFFSET 0) AS e
    WHERE NOT d.dead AND d.settled_at_ms >= (SELECT from_ms FROM looked)
      AND d.settled_at_ms <= (SELECT coalesce(end_ms, until_ms) FROM looked)
    ORDER BY d.settled_at_ms LIMIT %(page)s FOR UPDATE OF d SKIP LOCKED
), emptied AS (
    UPDATE outbox.events SET payload = '' WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
), changed AS (
    INSERT INTO outbox.changes (owners, stored, stored_bytes)
    SELECT array_agg(owner), array_agg(0), array_agg(-bytes)
    FROM (SELECT owner, sum(size) AS bytes FROM picked GROUP BY owner) AS o HAVING count(*) > 0
)
SELECT count, CASE WHEN is_full THEN from_ms ELSE end_ms + 1 END, NOT is_full AND end_ms IS NULL
FROM looked, (SELECT count(*), count(*) >= %(page)s AS is_full FROM picked) AS p
