-- The file as its journal sees it. :ranges is a JSON array of [first, last] seqs.

-- name: JOURNAL_BEGIN
INSERT INTO outbox_journal (id, ours) VALUES (:id, NULL) ON CONFLICT (id) DO NOTHING

-- name: JOURNAL_ENDED
-- The rows up to :upto are of earlier starts than :id.
UPDATE outbox_journal SET ours = :upto, had = max(had, :upto) WHERE ours IS NULL AND id <> :id

-- name: JOURNAL_KNOWN
SELECT id, ours, had FROM outbox_journal ORDER BY rowid

-- name: JOURNAL_HAD
INSERT INTO outbox_journal (id, had) VALUES (:id, :upto)
ON CONFLICT (id) DO UPDATE SET had = max(had, excluded.had)

-- name: JOURNAL_FORGET
DELETE FROM outbox_journal WHERE id = :id

-- name: JOURNAL_SKIP
-- No row gets a number up to :upto.
UPDATE outbox_meta SET last_seq = max(last_seq, :upto)

-- name: JOURNAL_LEFT
-- Of each range how many rows are neither delivered nor dead, and how many are dead.
SELECT value ->> 0,
    (SELECT count(*) FROM outbox_ready WHERE seq BETWEEN value ->> 0 AND value ->> 1)
    + (SELECT count(*) FROM outbox_claims WHERE seq BETWEEN value ->> 0 AND value ->> 1)
    + (SELECT count(*) FROM outbox_sent WHERE seq BETWEEN value ->> 0 AND value ->> 1),
    (SELECT count(*) FROM outbox_done WHERE seq BETWEEN value ->> 0 AND value ->> 1 AND dead = 1)
FROM json_each(:ranges)

-- name: JOURNAL_KEPT
SELECT seq FROM (
    SELECT seq FROM outbox_ready UNION ALL SELECT seq FROM outbox_claims
    UNION ALL SELECT seq FROM outbox_sent UNION ALL SELECT seq FROM outbox_done WHERE dead = 1)
ORDER BY seq

-- name: JOURNAL_ROWS
-- The rows of a range that are not delivered, in their order. A claimed row may have been sent.
SELECT seq, event_id, name, owner, user_id, accepted_at_ms, payload, meta, idempotency_key,
       idempotency_digest, state = 'dead', attempts, sends + (state = 'delivering'), isolated,
       first_sent_at_ms, settled_at_ms, reason, detail, history,
       (SELECT prefix FROM outbox_prefixes WHERE from_seq <= seq ORDER BY from_seq DESC LIMIT 1)
FROM (SELECT seq, payload FROM outbox WHERE seq BETWEEN :first AND :last)
CROSS JOIN outbox_rows USING (seq) WHERE state <> 'delivered' ORDER BY seq

-- name: JOURNAL_STORED
-- Which of these ids the file has; :ids is a JSON array.
SELECT event_id FROM outbox WHERE event_id IN (SELECT value FROM json_each(:ids))

-- name: JOURNAL_WRITE
-- A key that a later event uses stays with that one.
INSERT INTO outbox (seq, event_id, name, owner, user_id, accepted_at_ms, meta, idempotency_key,
                    idempotency_digest, payload)
SELECT :seq, :id, :name, :owner, :user_id, :accepted_at_ms, :meta, iif(used, NULL, :key),
       iif(used, NULL, :key_digest), :payload
FROM (SELECT EXISTS (SELECT 1 FROM outbox WHERE owner = :owner AND idempotency_key = :key) AS used)
