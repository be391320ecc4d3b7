-- name: CLAIM
-- Takes due rows under a lease: one that must be alone, else a fair share, a share of the newest, and
-- the oldest. SKIP LOCKED leaves out rows that another process is claiming. The row that
-- leads always fits; each lane has its share of the bytes, all together fit in the bytes.
WITH alone AS MATERIALIZED (
    SELECT seq FROM outbox.isolated_due ORDER BY due_at LIMIT %(alone)s FOR UPDATE SKIP LOCKED
), newest AS MATERIALIZED (
    SELECT seq, size FROM outbox.fresh
    WHERE seq >= CASE %(lead)s::int WHEN 2 THEN 0 ELSE (SELECT safe_seq FROM outbox.mark) END
    ORDER BY seq DESC LIMIT %(newest)s FOR UPDATE SKIP LOCKED
), delayed AS MATERIALIZED (
    SELECT seq, size FROM outbox.delayed_due ORDER BY due_at LIMIT %(events)s FOR UPDATE SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT seq, size FROM outbox.fresh ORDER BY seq LIMIT %(events)s FOR UPDATE SKIP LOCKED
), fair_share AS MATERIALIZED (
    SELECT seq, size FROM outbox.fair_share ORDER BY fair_share_seq LIMIT %(fair_share)s
    FOR UPDATE SKIP LOCKED
), again AS MATERIALIZED (
    SELECT seq, size FROM outbox.fair_share_due ORDER BY due_at LIMIT %(fair_share)s
    FOR UPDATE SKIP LOCKED
), found (lane, place, seq, size) AS (
    SELECT 1, row_number() OVER (ORDER BY seq), * FROM (TABLE fair_share UNION ALL TABLE again) AS e
    UNION ALL SELECT 2, row_number() OVER (ORDER BY seq DESC), * FROM newest
    UNION ALL SELECT 3, row_number() OVER (ORDER BY seq), *
    FROM (TABLE delayed UNION ALL TABLE fresh) AS o
), fitting AS (
    SELECT seq, size, sum(size) OVER (ORDER BY leads DESC, lane, place) AS running FROM (
        SELECT DISTINCT ON (seq) *, sum(size) OVER (PARTITION BY lane ORDER BY place) AS in_lane
        FROM (SELECT *, lane = %(lead)s::int AND place = 1 AS leads FROM found) AS f
        WHERE place <= (%(places)s::int[])[lane] ORDER BY seq, leads DESC, lane = 1 DESC, lane DESC
    ) AS once WHERE leads OR in_lane <= (%(shares)s::bigint[])[lane]
    ORDER BY leads DESC, lane, place LIMIT %(events)s
), taken AS (
    DELETE FROM outbox.ready WHERE seq = ANY(ARRAY(SELECT seq FROM alone UNION ALL
        SELECT seq FROM fitting
        WHERE (running <= %(bytes)s OR running = size) AND NOT EXISTS (SELECT FROM alone)))
    RETURNING seq, attempts, sends, isolated, first_sent_at_ms, fair_share_seq
), held AS (
    INSERT INTO outbox.claims
    SELECT %(claim)s, at + make_interval(secs => %(lease_seconds)s), at_ms, array_agg(seq),
           array_agg(attempts), array_agg(sends), array_agg(isolated), array_agg(first_sent_at_ms),
           array_agg(fair_share_seq) FROM taken, outbox.moment GROUP BY at, at_ms
)
SELECT t.seq, event_id, accepted_at_ms, coalesce(user_id, outbox.user_of(owner)), attempts, isolated,
       first_sent_at_ms, sends, meta::text, owner, payload
FROM taken t CROSS JOIN LATERAL (SELECT * FROM outbox.events e WHERE e.seq = t.seq OFFSET 0) AS e
ORDER BY t.seq

-- name: NEXT_DUE
-- Seconds until a row is due, 0 for one that is, null without one.
SELECT CASE WHEN EXISTS (SELECT FROM outbox.fresh) THEN 0 ELSE extract(epoch FROM least(
    (SELECT due_at FROM outbox.delayed ORDER BY due_at LIMIT 1),
    (SELECT due_at FROM outbox.isolated WHERE %(isolated)s ORDER BY due_at LIMIT 1)
) - (SELECT at FROM outbox.moment))::float8 END

-- name: SETTLE
-- Settles rows of one claim; other rows stay under it. Returns the named rows that were not under the
-- claim; none where it is repeated because its answer was lost: it may have run.
WITH named AS MATERIALIZED (
    SELECT u.*, n.*, at, at_ms, coalesce(u.sent_at, claimed_at_ms) AS first_sent_at_ms
    FROM (SELECT * FROM outbox.claims WHERE claim = %(claim)s FOR UPDATE) AS held CROSS JOIN outbox.moment
    CROSS JOIN unnest(seqs, attempts, sends, isolated, first_sent_at_ms, fair_share_seqs)
        AS u(no, was_attempts, was_sends, was_isolated, sent_at, fair_share_seq)
    LEFT JOIN unnest(%(seqs)s::bigint[], %(states)s::text[], %(owners)s::text[], %(sizes)s::int[],
                     %(attempts)s::int[], %(isolated)s::boolean[], %(delays)s::float8[],
                     %(words)s::text[], %(details)s::text[])
        AS n(seq, state, owner, size, attempts, isolated, delay, word, detail) ON n.seq = u.no
), done AS (
    INSERT INTO outbox.done SELECT seq, at_ms, first_sent_at_ms, coalesce(attempts, was_attempts + 1),
        was_sends + 1, was_isolated, state = 'dead', word, detail
    FROM named WHERE state IN ('delivered', 'dead')
), sent AS (
    INSERT INTO outbox.sent SELECT seq, greatest(at_ms, (SELECT sent_from FROM outbox.mark)),
        first_sent_at_ms, was_attempts + 1, was_sends + 1, was_isolated FROM named WHERE state = 'sent'
), again AS (
    INSERT INTO outbox.ready SELECT seq, at + make_interval(secs => delay), first_sent_at_ms, attempts,
        was_sends + 1, size, isolated, fair_share_seq FROM named WHERE state = 'pending'
), noted AS (
    INSERT INTO outbox.notes (seq, at_ms, note)
    SELECT seq, at_ms, word FROM named WHERE state = 'pending' AND word IS NOT NULL
), changed AS (
    INSERT INTO outbox.changes (owners, pending, delivered, dead, sent)
    SELECT array_agg(owner), array_agg(-rows), sum(delivered), sum(dead), sum(sent) FROM (
        SELECT owner, count(*) AS rows, count(*) FILTER (WHERE state = 'delivered') AS delivered,
               count(*) FILTER (WHERE state = 'dead') AS dead, count(*) FILTER (WHERE state = 'sent') AS sent
        FROM named WHERE state <> 'pending' GROUP BY owner) AS o HAVING count(*) > 0
), over AS (
    DELETE FROM outbox.claims WHERE claim = %(claim)s AND NOT EXISTS (SELECT FROM named WHERE seq IS NULL)
), kept AS (
    UPDATE outbox.claims SET (seqs, attempts, sends, isolated, first_sent_at_ms, fair_share_seqs) = (
        SELECT array_agg(no), array_agg(was_attempts), array_agg(was_sends), array_agg(was_isolated),
               array_agg(sent_at), array_agg(fair_share_seq) FROM named WHERE seq IS NULL)
    WHERE claim = %(claim)s AND EXISTS (SELECT FROM named WHERE seq IS NULL)
)
SELECT unnest(%(seqs)s::bigint[]) WHERE NOT %(repeated)s EXCEPT SELECT seq FROM named

-- name: RELEASE
-- Ends claims: those named, or those whose lease is over. Their rows are due; `sent` says that they
-- may have been sent. Returns how many.
WITH gone AS (
    DELETE FROM outbox.claims WHERE claim = ANY(%(claims)s::text[] || ARRAY(
        SELECT claim FROM outbox.claims
        WHERE %(over)s AND lease_until >= (SELECT lease_from FROM outbox.mark)
          AND lease_until <= (SELECT at FROM outbox.moment) FOR UPDATE SKIP LOCKED))
    RETURNING *
), back AS (
    INSERT INTO outbox.ready
    SELECT u.seq, (SELECT at FROM outbox.moment),
           CASE WHEN %(sent)s THEN coalesce(u.first, claimed_at_ms) ELSE u.first END, u.attempts,
           u.sends + %(sent)s::boolean::int, octet_length(e.payload), u.isolated, u.fair_share_seq
    FROM gone CROSS JOIN LATERAL unnest(gone.seqs, gone.attempts, gone.sends, gone.isolated,
                                        gone.first_sent_at_ms, gone.fair_share_seqs)
        AS u(seq, attempts, sends, isolated, first, fair_share_seq)
    CROSS JOIN LATERAL (SELECT * FROM outbox.events e WHERE e.seq = u.seq OFFSET 0) AS e
    RETURNING 1
)
SELECT count(*) FROM back

-- name: ANSWERED
-- Keeps the ULIDs that Inngest gave events instead of their own. Safe to repeat.
UPDATE outbox.events AS e
SET meta = coalesce(e.meta, '{}') || jsonb_build_object('answered_id', a.ulid)
FROM unnest(%(seqs)s::bigint[], %(ulids)s::text[]) AS a(seq, ulid) WHERE e.seq = a.seq
