-- name: ROWS
-- The rows that a filter finds, newest first. The source is one of the views of the places that lists
-- begin at; ids, an alias and what begins with `in_` are asked of it, the rest of the rows. It is
-- planned with its values, so that a condition without one is dropped.
SELECT r.event_id, r.name, r.owner, r.user_id, r.state, r.attempts, r.sends, r.isolated,
       r.accepted_at_ms, r.first_sent_at_ms, r.settled_at_ms, r.due_seconds, r.lease_seconds,
       r.reason, r.detail,
       (SELECT at_ms FROM outbox.histories h WHERE h.seq = r.seq),
       (SELECT notes FROM outbox.histories h WHERE h.seq = r.seq), r.payload_bytes, r.seq, r.meta::text
FROM (
    SELECT seq FROM outbox.source
    WHERE (%(in_owner)s::text IS NULL OR (owner = %(in_owner)s AND seq > -1))
      AND (%(ids)s::text[] IS NULL OR seq = ANY(ARRAY(
          SELECT seq FROM outbox.events WHERE event_id = ANY(%(ids)s))))
      AND (%(alias)s::text IS NULL OR seq = ANY(ARRAY(
          SELECT seq FROM outbox.events WHERE owner = %(owner)s AND meta ->> 'wire_id' = %(alias)s
              AND left(meta ->> 'wire_id', 255) = left(%(alias)s, 255) AND meta ->> 'wire_id' <> ''
          UNION ALL SELECT seq FROM outbox.events WHERE meta ->> 'moved_id' = %(alias)s)))
      AND (%(in_prefix)s::text IS NULL OR seq = ANY(ARRAY(
          SELECT seq FROM outbox.events WHERE event_id >= %(in_prefix)s AND event_id < %(prefix_end)s
          ORDER BY event_id DESC LIMIT 10000)))
      AND (%(before_seq)s::bigint IS NULL OR seq < %(before_seq)s)
      AND (%(after_seq)s::bigint IS NULL OR seq > %(after_seq)s) ORDER BY seq DESC
) AS f CROSS JOIN LATERAL (SELECT * FROM outbox.rows WHERE rows.seq = f.seq OFFSET 0) AS r
WHERE (%(state)s::text IS NULL OR r.state = %(state)s)
  AND (%(owner)s::text IS NULL OR r.owner = %(owner)s)
  AND (%(user_id)s::text IS NULL OR r.user_id = %(user_id)s)
  AND (%(name)s::text IS NULL OR r.name = %(name)s)
  AND (%(reason)s::text IS NULL OR r.reason = %(reason)s)
  AND (%(since_ms)s::bigint IS NULL OR r.accepted_at_ms >= %(since_ms)s)
  AND (%(until_ms)s::bigint IS NULL OR r.accepted_at_ms < %(until_ms)s)
  AND (%(prefix)s::text IS NULL OR (r.event_id >= %(prefix)s AND r.event_id < %(prefix_end)s))
  AND (%(user_part)s::text IS NULL OR position(lower(%(user_part)s) IN lower(r.user_id)) > 0)
  AND (%(name_part)s::text IS NULL OR position(lower(%(name_part)s) IN lower(r.name)) > 0)
  AND (%(reason_part)s::text IS NULL OR position(lower(%(reason_part)s) IN lower(r.reason)) > 0)
  AND (%(payload_part)s::bytea IS NULL OR position(%(payload_part)s IN
       (SELECT payload FROM outbox.events WHERE events.seq = r.seq)) > 0)
  AND (NOT %(never_sent)s::boolean OR r.never_sent)
ORDER BY f.seq DESC LIMIT %(limit)s

-- name: ROWS_BY_IDS
-- The same for what requests ask: it is planned once.
SELECT r.event_id, r.name, r.owner, r.user_id, r.state, r.attempts, r.sends, r.isolated,
       r.accepted_at_ms, r.first_sent_at_ms, r.settled_at_ms, r.due_seconds, r.lease_seconds,
       r.reason, r.detail,
       (SELECT at_ms FROM outbox.histories h WHERE h.seq = r.seq),
       (SELECT notes FROM outbox.histories h WHERE h.seq = r.seq), r.payload_bytes, r.seq, r.meta::text
FROM (SELECT seq FROM outbox.events WHERE event_id = ANY(%(ids)s::text[]) OFFSET 0) AS f
CROSS JOIN LATERAL (SELECT * FROM outbox.rows WHERE rows.seq = f.seq OFFSET 0) AS r
ORDER BY r.seq DESC LIMIT %(limit)s

-- name: ARRIVED
-- The rows of the inbox that a filter finds, newest first.
SELECT event_id, name, owner, coalesce(user_id, ''), accepted_at_ms, octet_length(data), no, data,
       rest::text, idempotency_key
FROM outbox.arrived
WHERE (%(ids)s::text[] IS NULL OR event_id = ANY(%(ids)s::text[]))
  AND (%(owner)s::text IS NULL OR owner = %(owner)s)
  AND (%(alias)s::text IS NULL OR rest ->> 'id' = %(alias)s)
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
  AND (%(name)s::text IS NULL OR name = %(name)s)
  AND (%(since_ms)s::bigint IS NULL OR accepted_at_ms >= %(since_ms)s)
  AND (%(until_ms)s::bigint IS NULL OR accepted_at_ms < %(until_ms)s)
  AND (%(prefix)s::text IS NULL OR (event_id >= %(prefix)s AND event_id < %(prefix_end)s))
  AND (%(user_part)s::text IS NULL OR position(lower(%(user_part)s) IN lower(user_id)) > 0)
  AND (%(name_part)s::text IS NULL OR position(lower(%(name_part)s) IN lower(name)) > 0)
  AND (%(payload_part)s::bytea IS NULL OR position(convert_from(%(payload_part)s, 'UTF8') IN data::text) > 0)
  AND (%(before_seq)s::bigint IS NULL OR no < %(before_seq)s - 4503599627370496)
  AND (%(after_seq)s::bigint IS NULL OR no > %(after_seq)s - 4503599627370496)
ORDER BY no DESC LIMIT %(limit)s

-- name: SEQ_AT
-- The number below which rows were accepted before a moment: halves the numbers until one is left.
WITH RECURSIVE halved (low, high) AS (
    SELECT coalesce((SELECT min(seq) FROM outbox.events), 0),
           coalesce((SELECT max(seq) FROM outbox.events), 0) + 1
    UNION ALL
    SELECT CASE WHEN is_before THEN middle + 1 ELSE low END,
           CASE WHEN is_before THEN high ELSE middle END
    FROM (
        SELECT low, high, (low + high) / 2 AS middle, coalesce(
            (SELECT accepted_at_ms FROM outbox.events WHERE seq >= (low + high) / 2
             ORDER BY seq LIMIT 1) < %(at_ms)s, false) AS is_before
        FROM halved WHERE low < high
    ) AS step
)
SELECT low FROM halved WHERE low >= high

-- name: REACH
-- The last of the newest rows of the source or of an owner, in the order of seq.
SELECT p.seq, (SELECT accepted_at_ms FROM outbox.events WHERE events.seq = p.seq) FROM (
    SELECT seq FROM outbox.source
    WHERE (%(in_owner)s::text IS NULL OR (owner = %(in_owner)s AND seq > -1))
      AND (%(before)s::bigint IS NULL OR seq < %(before)s)
    ORDER BY seq DESC LIMIT 1 OFFSET %(skipped)s
) AS p

-- name: REACH_PENDING
-- The same for pending rows, by their numbers where they are many: a look goes through 100,000
-- numbers at most, since those of rows that are gone cost too. Rows of the lanes that wait for a time
-- are counted whatever their number: it bounds no read.
WITH ends AS MATERIALIZED (
    SELECT (SELECT seq FROM outbox.events ORDER BY seq LIMIT 1) AS lowest,
           (SELECT seq FROM outbox.events WHERE %(before)s::bigint IS NULL OR seq < %(before)s
            ORDER BY seq DESC LIMIT 1) AS highest
), few AS MATERIALIZED (
    SELECT count(*) <= %(skipped)s AND coalesce(
        (SELECT highest - ready_from < 100000 FROM ends, outbox.mark), true) AS are_few
    FROM (
        (SELECT FROM outbox.fresh WHERE seq < (SELECT ready_from FROM outbox.mark) + 100000
             AND (%(before)s::bigint IS NULL OR seq < %(before)s) LIMIT %(skipped)s + 1)
        UNION ALL (SELECT FROM outbox.delayed LIMIT %(skipped)s + 1)
        UNION ALL (SELECT FROM outbox.isolated LIMIT %(skipped)s + 1)
        LIMIT %(skipped)s + 1
    ) AS waiting
), reached AS MATERIALIZED (
    SELECT coalesce(
        (SELECT seq FROM outbox.ready WHERE seq <= (SELECT highest FROM ends)
             AND seq > (SELECT highest FROM ends) - 100000
         ORDER BY seq DESC LIMIT 1 OFFSET %(skipped)s),
        greatest(lowest, highest - 99999)) AS seq
    FROM ends WHERE NOT (SELECT are_few FROM few)
)
SELECT seq, (SELECT accepted_at_ms FROM outbox.events WHERE events.seq >= reached.seq
             ORDER BY seq LIMIT 1), seq <= (SELECT lowest FROM ends)
FROM reached
