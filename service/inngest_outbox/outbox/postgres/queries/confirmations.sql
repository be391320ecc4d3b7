-- name: COUNT_SENT
SELECT sent FROM outbox.current_totals

-- name: SENT
-- Sent rows in the order of seq. They are read by the time of their sending, and sorted: the order of
-- seq begins with dead rows.
WITH waiting AS MATERIALIZED (SELECT seq, sent_at_ms, sends FROM outbox.answered)
SELECT s.seq, e.event_id, e.accepted_at_ms,
       greatest(0, (SELECT at_ms FROM outbox.moment) - s.sent_at_ms)::float8 / 1000, s.sends,
       e.meta::text
FROM (SELECT * FROM waiting WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s) AS s
CROSS JOIN LATERAL (SELECT * FROM outbox.events WHERE events.seq = s.seq OFFSET 0) AS e
ORDER BY s.seq

-- name: CONFIRM
-- Sent rows become delivered; returns how many were still sent.
WITH gone AS (
    DELETE FROM outbox.sent WHERE seq = ANY(%(seqs)s::bigint[]) RETURNING *
), done AS (
    INSERT INTO outbox.done (seq, settled_at_ms, first_sent_at_ms, attempts, sends, isolated, dead)
    SELECT seq, at_ms, first_sent_at_ms, attempts, sends, isolated, false FROM gone, outbox.moment
), changed AS (
    INSERT INTO outbox.changes (delivered, sent)
    SELECT count(*), -count(*) FROM gone HAVING count(*) > 0
)
SELECT count(*) FROM gone

-- name: RESEND
-- Sent rows become pending; returns how many were still sent. The lost answer does not count as an
-- attempt.
WITH gone AS (
    DELETE FROM outbox.sent WHERE seq = ANY(%(seqs)s::bigint[]) RETURNING *
), again AS MATERIALIZED (
    SELECT gone.*, e.owner, e.payload_bytes, at, at_ms FROM outbox.moment, gone CROSS JOIN LATERAL (
        SELECT owner, octet_length(payload) AS payload_bytes FROM outbox.events e
        WHERE e.seq = gone.seq OFFSET 0) AS e
), ready AS (
    INSERT INTO outbox.ready (seq, due_at, first_sent_at_ms, attempts, sends, payload_bytes, isolated)
    SELECT seq, at, first_sent_at_ms, attempts - 1, sends, payload_bytes, isolated FROM again
), noted AS (
    INSERT INTO outbox.notes (seq, at_ms, note) SELECT seq, at_ms, %(note)s::text FROM again
), changed AS (
    INSERT INTO outbox.changes (owners, pending, sent)
    SELECT array_agg(owner), array_agg(rows), -sum(rows)
    FROM (SELECT owner, count(*) AS rows FROM again GROUP BY owner) AS o HAVING count(*) > 0
)
SELECT count(*) FROM again

-- name: TAKE_TURN
-- Whether this process has the turn now. It is written again only in its second half, because each
-- write leaves a dead row. One that ends far ahead is of a clock that was set back.
WITH taken AS (
    UPDATE outbox.turns
    SET holder = %(holder)s, until = statement_timestamp() + make_interval(secs => %(seconds)s::float8)
    WHERE name = %(turn)s AND (
        until < statement_timestamp()
        OR until > statement_timestamp() + make_interval(secs => %(seconds)s::float8 * 2)
        OR holder = %(holder)s
           AND until < statement_timestamp() + make_interval(secs => %(seconds)s::float8 / 2))
    RETURNING 1
)
SELECT EXISTS (SELECT FROM taken) OR holder = %(holder)s AND until >= statement_timestamp()
FROM outbox.turns WHERE name = %(turn)s

-- name: END_TURN
-- Lets another process take the turn.
UPDATE outbox.turns SET until = '-infinity' WHERE name = %(turn)s AND holder = %(holder)s

-- name: PREFIXES
-- From which seq on Inngest's ids have which random bytes, the latest first.
SELECT from_seq, prefix FROM outbox.prefixes ORDER BY from_seq DESC

-- name: ADD_PREFIX
-- New random bytes for the numbers to come, unless the last ones are of this server, its timeline and
-- this database: a restored outbox gives numbers again.
INSERT INTO outbox.prefixes (from_seq, prefix, origin)
SELECT last_value + is_called::int, %(prefix)s::bytea, now.origin
FROM outbox.events_seq_seq, (
    SELECT concat_ws(' ', system_identifier, timeline_id,
                     (SELECT oid FROM pg_database WHERE datname = current_database())) AS origin
    FROM pg_control_system(), pg_control_checkpoint()
) AS now
WHERE now.origin IS DISTINCT FROM (
    SELECT origin FROM outbox.prefixes ORDER BY from_seq DESC LIMIT 1)
ON CONFLICT (from_seq) DO UPDATE SET prefix = excluded.prefix, origin = excluded.origin
