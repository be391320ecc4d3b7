-- The rows for people, and figures of the outbox.

-- name: ROWS
-- Columns of rows for people at the moment :now; the text that follows begins with FROM.
SELECT event_id, name, owner, user_id, state, attempts, sends, isolated, accepted_at_ms,
       first_sent_at_ms, settled_at_ms, max(0, due_at_ms - :now) / 1000.0,
       max(0, lease_until_ms - :now) / 1000.0, reason, detail, history, payload_bytes, seq, meta,
       (SELECT prefix FROM outbox_prefixes WHERE from_seq <= seq ORDER BY from_seq DESC LIMIT 1)

-- name: COUNTS
SELECT (SELECT count(*) FROM outbox_ready), (SELECT count(*) FROM outbox_claims),
       (SELECT count(*) FROM outbox_sent), (SELECT count(*) FROM outbox_done),
       (SELECT count(*) FROM outbox_done WHERE dead = 1)

-- name: OLDEST
-- When the oldest row that waits and is due at :due was accepted; with :delays, since when it waits:
-- a delayed row from its time on. Rows are numbered in the order of their acceptance.
-- Where the clock was ahead, the first rows may lie in the future of :now: they do not count.
SELECT coalesce(min(iif(since <= :now, since, NULL)), min(since)) FROM (
    SELECT max(accepted_at_ms, iif(:delays, coalesce(meta ->> 'due_at_ms', 0), 0)) AS since FROM (
        SELECT * FROM (SELECT seq FROM outbox_ready WHERE due_at_ms <= :due ORDER BY seq LIMIT 100)
        UNION ALL SELECT * FROM (
            SELECT seq FROM outbox_ready WHERE due_at_ms <= :due ORDER BY seq DESC LIMIT 100)
        UNION ALL SELECT * FROM (SELECT seq FROM outbox_claims ORDER BY seq LIMIT 100))
    CROSS JOIN outbox USING (seq))

-- name: PAYLOAD
SELECT payload FROM outbox WHERE event_id = :id

-- name: OWNERS
SELECT owner, count(*), sum(length(payload)) FROM outbox
GROUP BY owner ORDER BY 3 DESC, owner LIMIT :limit

-- name: DEAD_GROUPS
-- The detail is that of the latest row of each group, as max() is the only aggregate that picks one.
SELECT name, coalesce(reason, ''), count(*), max(settled_at_ms), coalesce(detail, '') FROM (
    SELECT seq, reason, detail, settled_at_ms FROM outbox_done WHERE dead = 1
    ORDER BY seq DESC LIMIT :limit)
CROSS JOIN outbox USING (seq) GROUP BY 1, 2 ORDER BY 3 DESC, 4 DESC

-- name: REACH_OF_OWNER
SELECT seq, accepted_at_ms FROM outbox WHERE owner = :owner AND seq < :before
ORDER BY seq DESC LIMIT 1 OFFSET :skipped

-- name: ENDS
SELECT coalesce((SELECT min(seq) FROM outbox), 0), coalesce((SELECT max(seq) FROM outbox), 0) + 1

-- name: ACCEPTED_FROM
SELECT accepted_at_ms FROM outbox WHERE seq >= :seq ORDER BY seq LIMIT 1

-- name: REACH_ALL
SELECT seq, accepted_at_ms FROM outbox WHERE seq < :before ORDER BY seq DESC LIMIT 1 OFFSET :skipped

-- name: REACH_PENDING
SELECT seq, (SELECT accepted_at_ms FROM outbox WHERE outbox.seq = place.seq)
FROM outbox_ready AS place WHERE seq < :before ORDER BY seq DESC LIMIT 1 OFFSET :skipped

-- name: REACH_DELIVERING
SELECT seq, (SELECT accepted_at_ms FROM outbox WHERE outbox.seq = place.seq)
FROM outbox_claims AS place WHERE seq < :before ORDER BY seq DESC LIMIT 1 OFFSET :skipped

-- name: REACH_SENT
SELECT seq, (SELECT accepted_at_ms FROM outbox WHERE outbox.seq = place.seq)
FROM outbox_sent AS place WHERE seq < :before ORDER BY seq DESC LIMIT 1 OFFSET :skipped

-- name: REACH_DELIVERED
SELECT seq, (SELECT accepted_at_ms FROM outbox WHERE outbox.seq = place.seq)
FROM outbox_done AS place WHERE dead = 0 AND seq < :before
ORDER BY seq DESC LIMIT 1 OFFSET :skipped

-- name: REACH_DEAD
SELECT seq, (SELECT accepted_at_ms FROM outbox WHERE outbox.seq = place.seq)
FROM outbox_done AS place WHERE dead = 1 AND seq < :before
ORDER BY seq DESC LIMIT 1 OFFSET :skipped
