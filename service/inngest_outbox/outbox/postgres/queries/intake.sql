-- name: APPEND
-- Stores new events, synced whatever the database's default is, and removes their rows from the
-- inbox. All or, where an id or a key is stored already or another owner has just used an id on the
-- wire, none. Returns their seqs, which follow the order of the calls; the events come in the order
-- of their keys, so that two processes never wait for each other's.
WITH numbers AS MATERIALIZED (
    SELECT array_agg(nextval('outbox.events_seq_seq')) AS seqs
    FROM (SELECT CASE WHEN cardinality(%(wire_ids)b::text[]) > 0 THEN outbox.keep_ids(
              %(environments)b::text[], %(wire_ids)b::text[], %(wire_owners)b::text[],
              %(shared)b::text[], %(since)b::bigint) END OFFSET 0) AS kept,
         generate_series(1, %(rows)s::int)
), put AS (
    INSERT INTO outbox.events (seq, event_id, name, owner, user_id, accepted_at_ms, meta,
                               idempotency_key, idempotency_digest, payload)
    SELECT seqs[position], id, name, owner, nullif(user_id, outbox.user_of(owner)), accepted_at_ms,
           meta::jsonb, key, digest, payload
    FROM numbers, unnest(
        %(positions)b::int[], %(ids)b::text[], %(names)b::text[], %(owners)b::text[],
        %(users)b::text[], %(accepted)b::bigint[], %(metas)b::text[], %(keys)b::text[],
        %(digests)b::bytea[], %(payloads)b::bytea[]
    ) AS g(position, id, name, owner, user_id, accepted_at_ms, meta, key, digest, payload)
), ready AS (
    INSERT INTO outbox.ready (seq, payload_bytes, due_at, fair_share_seq)
    SELECT seq, size, due_at, CASE WHEN fair_share THEN seq END
    FROM numbers, unnest(seqs, %(sizes)b::int[], %(due)b::bigint[], %(fair_share)b::boolean[])
        AS r(seq, size, due_ms, fair_share), LATERAL (
        SELECT CASE WHEN due_ms > 0 AND to_timestamp(due_ms / 1000.0) > (SELECT at FROM outbox.moment)
                    THEN to_timestamp(due_ms / 1000.0) END AS due_at) AS d
), drained AS (
    DELETE FROM outbox.inbox WHERE ctid = ANY(ARRAY(
        SELECT i.ctid FROM unnest(%(xids)b::text[], %(nos)b::bigint[]) AS d(xid, no), LATERAL (
            SELECT ctid FROM outbox.inbox WHERE xid = d.xid::xid8 AND no = d.no OFFSET 0) AS i))
), changed AS (
    INSERT INTO outbox.changes (owners, pending, stored, stored_bytes)
    SELECT %(by_owner)b::text[], %(owner_rows)b::bigint[], %(owner_rows)b::bigint[],
           %(owner_bytes)b::bigint[]
    WHERE %(rows)s::int > 0
)
SELECT * FROM numbers, outbox.synced

-- name: FIND_STORED
-- What is stored under these ids, or under these owners' keys, and the time.
WITH found AS (
    SELECT seq FROM outbox.events WHERE event_id = ANY(%(ids)s::text[])
    UNION
    SELECT e.seq FROM unnest(%(owners)s::text[], %(keys)s::text[]) AS g(owner, key)
    CROSS JOIN LATERAL (SELECT seq FROM outbox.events
                        WHERE events.owner = g.owner AND idempotency_key = g.key OFFSET 0) AS e
)
SELECT e.event_id, e.owner, e.idempotency_key, e.idempotency_digest, e.seq, e.accepted_at_ms,
       e.meta::text, (SELECT at_ms FROM outbox.moment)
FROM found CROSS JOIN LATERAL (
    SELECT * FROM outbox.events WHERE events.seq = found.seq OFFSET 0) AS e

-- name: FREE_KEYS
-- These events lose their key, whose lifetime is over.
UPDATE outbox.events SET idempotency_key = NULL, idempotency_digest = NULL
WHERE seq = ANY(%(seqs)s::bigint[])

-- name: SYNC
-- A commit that waits for all earlier ones, even those that may not have reached a standby.
WITH change AS (INSERT INTO outbox.changes DEFAULT VALUES)
SELECT * FROM outbox.synced

-- name: PROBE
-- Needs the same rights and locks as an append, a claim and a settlement; stores an empty change.
WITH event AS (
    INSERT INTO outbox.events (event_id, name, owner, user_id, accepted_at_ms, payload)
    SELECT '', '', '', '', 0, '' WHERE false
), ready AS (
    INSERT INTO outbox.ready (seq, payload_bytes) SELECT 0, 0 WHERE false
), claim AS (
    DELETE FROM outbox.claims WHERE false
), done AS (
    INSERT INTO outbox.done (seq, settled_at_ms, attempts, sends, isolated, dead)
    SELECT 0, 0, 0, 0, false, false WHERE false
)
INSERT INTO outbox.changes DEFAULT VALUES

-- name: WIRE_IDS_USED
-- The owners that used these ids lately; since leaves out what Inngest has forgotten.
SELECT coalesce(meta ->> 'environment', ''), meta ->> 'wire_id', owner FROM outbox.events
WHERE left(meta ->> 'wire_id', 255) = ANY(%(starts)s::text[])
  AND meta ->> 'wire_id' = ANY(%(ids)s::text[]) AND meta ->> 'wire_id' <> ''
  AND accepted_at_ms > %(since)s::bigint
