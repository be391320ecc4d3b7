-- Appending events. The INSERT of rows into outbox is made in appends.py, since a statement with many
-- bound rows costs SQLite half as much as JSON that it has to read.

-- name: NEXT_SEQ
-- A seq is never given again, not even that of a removed row: Inngest's id follows from it.
SELECT max(coalesce((SELECT max(seq) FROM outbox), 0), last_seq) + 1 FROM outbox_meta

-- name: APPEND_READY
-- The new rows are pending: :sizes is a JSON array of their sizes, :first the first one's seq.
INSERT INTO outbox_ready (seq, payload_bytes) SELECT :first + key, value FROM json_each(:sizes)

-- name: APPEND_READY_MARKED
-- The same for rows of which some are delayed or have a fair share: :marks is a JSON array of
-- [size, due at, fair share].
INSERT INTO outbox_ready (seq, payload_bytes, due_at_ms, delayed, fair_share)
SELECT :first + key, value ->> 0, value ->> 1, (value ->> 1) > 0, value ->> 2 FROM json_each(:marks)

-- name: KEYS_USED
-- :pairs is a JSON array of [owner, key].
SELECT owner, idempotency_key, event_id, seq, accepted_at_ms, idempotency_digest,
       meta
FROM json_each(:pairs) CROSS JOIN outbox ON owner = value ->> 0 AND idempotency_key = value ->> 1

-- name: WIRE_IDS_USED
-- :ids is a JSON array; :since leaves out what Inngest has forgotten.
SELECT coalesce(meta ->> 'environment', ''), meta ->> 'wire_id', owner
FROM json_each(:ids) CROSS JOIN outbox ON substr(meta ->> 'wire_id', 1, 255) = substr(value, 1, 255)
     AND meta ->> 'wire_id' = value AND meta ->> 'wire_id' <> ''
WHERE accepted_at_ms > :since

-- name: TAKE_KEYS
-- :seqs is a JSON array. The one change that a stored row knows.
UPDATE outbox SET idempotency_key = NULL, idempotency_digest = NULL
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: PENDING_BY_OWNER
SELECT owner, count(*) FROM outbox_ready CROSS JOIN outbox USING (seq) GROUP BY owner

-- name: BYTES_BY_OWNER
SELECT owner, sum(length(payload)) FROM outbox WHERE seq > :after AND seq <= :upto GROUP BY owner

-- name: NEWEST
SELECT coalesce(max(seq), 0) FROM outbox
