"""The statements that move an event between the tables of the outbox, and those that look for work.

Each is one statement and so one transaction. An event's `seq` is in exactly one of `outbox_ready`,
`outbox_claims` and `outbox_done`; a statement that takes it from one puts it into another. The
clock is `clock_timestamp()`, the database's own. `= ANY(ARRAY(...))` and `LATERAL ... OFFSET 0`
stand where a join would let the planner read a whole table when its figures are old.
"""

from __future__ import annotations

# Takes due rows: the oldest, a share of the newest, or one that must be alone. SKIP LOCKED leaves
# to another process what it is just taking; the byte budgets always let one row pass.
CLAIM = """
WITH first_suspect AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE isolated AND (due_at IS NULL OR due_at <= clock_timestamp())
    ORDER BY due_at NULLS FIRST, seq
    LIMIT CASE WHEN %(suspects)s = 'first' THEN 1 ELSE 0 END
    FOR UPDATE SKIP LOCKED
), wanted AS MATERIALIZED (
    SELECT CASE WHEN EXISTS (SELECT FROM first_suspect) THEN 0 ELSE %(oldest)s END AS oldest,
           CASE WHEN EXISTS (SELECT FROM first_suspect) THEN 0 ELSE %(newest)s END AS newest
), newest AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE NOT isolated AND due_at IS NULL AND seq >= %(floor)s
    ORDER BY seq DESC LIMIT (SELECT newest FROM wanted)
    FOR UPDATE SKIP LOCKED
), delayed AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE NOT isolated AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT (SELECT oldest + newest FROM wanted)
    FOR UPDATE SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE NOT isolated AND due_at IS NULL AND seq >= %(floor)s
    ORDER BY seq LIMIT (SELECT oldest + newest FROM wanted)
    FOR UPDATE SKIP LOCKED
), oldest AS MATERIALIZED (
    SELECT seq, payload_bytes FROM (TABLE delayed UNION ALL TABLE fresh) AS due
    WHERE seq NOT IN (SELECT seq FROM newest)
    ORDER BY seq LIMIT (SELECT oldest + newest - (SELECT count(*) FROM newest) FROM wanted)
), last_suspect AS MATERIALIZED (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE isolated AND (due_at IS NULL OR due_at <= clock_timestamp())
    ORDER BY due_at NULLS FIRST, seq
    LIMIT CASE WHEN %(suspects)s = 'last' AND NOT EXISTS (SELECT FROM oldest)
                    AND NOT EXISTS (SELECT FROM newest) THEN 1 ELSE 0 END
    FOR UPDATE SKIP LOCKED
), picked AS (
    SELECT seq FROM first_suspect
    UNION ALL SELECT seq FROM last_suspect
    UNION ALL SELECT seq FROM (
        SELECT seq, payload_bytes, sum(payload_bytes) OVER (ORDER BY seq) AS running FROM oldest
    ) AS o WHERE running <= %(oldest_bytes)s OR running = payload_bytes
    UNION ALL SELECT seq FROM (
        SELECT seq, payload_bytes, sum(payload_bytes) OVER (ORDER BY seq DESC) AS running
        FROM newest
    ) AS n WHERE running <= %(newest_bytes)s
              OR running = payload_bytes AND NOT EXISTS (SELECT FROM oldest)
), taken AS (
    DELETE FROM outbox_ready WHERE seq = ANY(ARRAY(SELECT seq FROM picked))
    RETURNING seq, attempts, sends, isolated, first_sent_at_ms
), held AS (
    INSERT INTO outbox_claims
        (claim, lease_until, claimed_at_ms, seqs, attempts, sends, isolated, first_sent_at_ms)
    SELECT %(claim)s, clock_timestamp() + make_interval(secs => %(lease_seconds)s),
           floor(extract(epoch FROM clock_timestamp()) * 1000),
           array_agg(seq), array_agg(attempts), array_agg(sends), array_agg(isolated),
           array_agg(first_sent_at_ms)
    FROM taken HAVING count(*) > 0
)
SELECT t.seq, event_id, accepted_at_ms, user_id, trace, attempts, isolated, first_sent_at_ms, sends,
       payload
FROM taken t CROSS JOIN LATERAL (SELECT * FROM outbox o WHERE o.seq = t.seq OFFSET 0) AS o
ORDER BY t.seq
"""

# Settles rows of one claim, whatever becomes of each; rows that are not named stay under it.
# Returns how many were named in vain, and whether any is due at once.
SETTLE = """
WITH held AS MATERIALIZED (
    SELECT * FROM outbox_claims WHERE claim = %(claim)s FOR UPDATE
), member AS MATERIALIZED (
    SELECT u.seq, u.attempts, u.sends + 1 AS sends, u.isolated,
           coalesce(u.first_sent_at_ms, held.claimed_at_ms) AS first_sent_at_ms
    FROM held, unnest(seqs, attempts, sends, isolated, first_sent_at_ms)
        AS u(seq, attempts, sends, isolated, first_sent_at_ms)
), delivered AS (
    SELECT DISTINCT seq FROM unnest(%(delivered)s::bigint[]) AS d(seq)
), again AS (
    SELECT * FROM unnest(%(again)s::bigint[], %(again_delays)s::float8[],
        %(again_attempts)s::integer[], %(again_alone)s::boolean[], %(again_notes)s::text[]
    ) AS a(seq, delay_seconds, attempts, isolated, note)
), dead AS (
    SELECT * FROM unnest(%(dead)s::bigint[], %(dead_attempts)s::integer[],
        %(dead_reasons)s::text[], %(dead_details)s::text[]) AS d(seq, attempts, reason, detail)
), named AS MATERIALIZED (
    SELECT seq FROM delivered UNION SELECT seq FROM again UNION SELECT seq FROM dead
), now AS MATERIALIZED (
    SELECT clock_timestamp() AS at,
           floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS at_ms
), put_done AS (
    INSERT INTO outbox_done (seq, settled_at_ms, first_sent_at_ms, attempts, sends, isolated, dead,
                             reason, detail)
    SELECT m.seq, at_ms, m.first_sent_at_ms, m.attempts + 1, m.sends, m.isolated, false, NULL, NULL
    FROM member m JOIN delivered USING (seq), now
    UNION ALL
    SELECT m.seq, at_ms, m.first_sent_at_ms, dead.attempts, m.sends, m.isolated, true, reason,
        detail
    FROM member m JOIN dead USING (seq), now
), put_ready AS (
    INSERT INTO outbox_ready (seq, due_at, first_sent_at_ms, attempts, sends, payload_bytes,
                              isolated, owner)
    SELECT m.seq,
           CASE WHEN delay_seconds > 0 THEN at + make_interval(secs => delay_seconds) END,
           m.first_sent_at_ms, again.attempts, m.sends, octet_length(o.payload), again.isolated,
           o.owner
    FROM member m JOIN again USING (seq)
    CROSS JOIN LATERAL (SELECT * FROM outbox o WHERE o.seq = m.seq OFFSET 0) AS o, now
), put_notes AS (
    INSERT INTO outbox_notes (seq, at_ms, note)
    SELECT seq, at_ms, note FROM member JOIN again USING (seq), now WHERE note IS NOT NULL
), rest AS MATERIALIZED (
    SELECT array_agg(u.seq) AS seqs, array_agg(u.attempts) AS attempts,
           array_agg(u.sends) AS sends, array_agg(u.isolated) AS isolated,
           array_agg(u.first_sent_at_ms) AS first_sent_at_ms
    FROM held, unnest(seqs, attempts, sends, isolated, first_sent_at_ms)
        AS u(seq, attempts, sends, isolated, first_sent_at_ms)
    WHERE u.seq NOT IN (SELECT seq FROM named) HAVING count(*) > 0
), kept AS (
    UPDATE outbox_claims c
    SET seqs = rest.seqs, attempts = rest.attempts, sends = rest.sends, isolated = rest.isolated,
        first_sent_at_ms = rest.first_sent_at_ms
    FROM rest WHERE c.claim = %(claim)s AND EXISTS (SELECT FROM held)
), emptied AS (
    DELETE FROM outbox_claims
    WHERE claim = %(claim)s AND EXISTS (SELECT FROM held) AND NOT EXISTS (SELECT FROM rest)
)
SELECT (SELECT count(*) FROM named WHERE seq NOT IN (SELECT seq FROM member)),
       EXISTS (SELECT FROM again JOIN member USING (seq) WHERE delay_seconds <= 0)
"""

# Makes the rows of claims due again: the named ones, a holder's, those whose lease is over.
# `sent` remembers that their bytes may have left. Returns how many rows.
GIVE_BACK = """
WITH gone AS (
    DELETE FROM outbox_claims WHERE claim IN (
        SELECT claim FROM outbox_claims
        WHERE claim = ANY(%(claims)s::text[]) OR starts_with(claim, %(holder)s::text || ':')
           OR (%(expired)s AND lease_until <= clock_timestamp())
        FOR UPDATE SKIP LOCKED
    ) RETURNING *
), back AS (
    INSERT INTO outbox_ready (seq, first_sent_at_ms, attempts, sends, payload_bytes, isolated,
        owner)
    SELECT u.seq,
           CASE WHEN %(sent)s THEN coalesce(u.first_sent_at_ms, gone.claimed_at_ms)
                ELSE u.first_sent_at_ms END,
           u.attempts, u.sends + CASE WHEN %(sent)s THEN 1 ELSE 0 END,
           octet_length(o.payload), u.isolated, o.owner
    FROM gone, unnest(seqs, attempts, sends, isolated, first_sent_at_ms)
        AS u(seq, attempts, sends, isolated, first_sent_at_ms)
    CROSS JOIN LATERAL (SELECT * FROM outbox o WHERE o.seq = u.seq OFFSET 0) AS o
    RETURNING 1
)
SELECT count(*) FROM back
"""

# The lowest live row. The only statement that steps over all rows deleted before it.
FLOOR = "SELECT coalesce(min(seq), 0) FROM outbox_ready"

# Seconds until the next delayed row is due, and until the next lease ends; null without one.
NEXT_DUE = """
SELECT extract(epoch FROM least(
           (SELECT min(due_at) FROM outbox_ready WHERE due_at IS NOT NULL AND NOT isolated),
           (SELECT min(due_at) FROM outbox_ready WHERE isolated AND %(isolated)s)
       ) - clock_timestamp())::float8,
       extract(epoch FROM (SELECT min(lease_until) FROM outbox_claims) - clock_timestamp())::float8
"""
