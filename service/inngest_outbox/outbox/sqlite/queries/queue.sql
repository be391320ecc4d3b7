-- Moving an event between the state tables. Its seq is in exactly one of them; what is taken from one
-- is put into another in the same transaction. Each statement takes all its rows in one step of
-- SQLite: fetching row by row would switch the interpreter lock for each row. CROSS JOIN fixes the
-- order of the join, whatever SQLite estimates of the tables' sizes. :rows is a JSON array of seqs.
-- A PICK returns a JSON array of seqs, and the bytes of their payloads in all.

-- name: PICK_OLDEST
-- The oldest rows that are due at :at, or at :wall by the time that their callers asked for. Rows whose
-- delay is over come first: they have waited longer than what was appended meanwhile.
SELECT json_group_array(seq), total(payload_bytes) FROM (
    SELECT seq, payload_bytes FROM (
        SELECT * FROM (SELECT seq, payload_bytes, due_at_ms FROM outbox_ready
                       WHERE delayed = 1 AND isolated = 0 AND due_at_ms <= :wall
                       ORDER BY due_at_ms, seq LIMIT :limit)
        UNION ALL
        SELECT * FROM (SELECT seq, payload_bytes, due_at_ms FROM outbox_ready
                       WHERE delayed = 0 AND isolated = 0 AND due_at_ms > 0 AND due_at_ms <= :at
                       ORDER BY due_at_ms, seq LIMIT :limit)
        ORDER BY due_at_ms, seq LIMIT :limit)
    UNION ALL
    SELECT * FROM (SELECT seq, payload_bytes FROM outbox_ready
                   WHERE isolated = 0 AND due_at_ms = 0 ORDER BY seq LIMIT :limit)
    LIMIT :limit)

-- name: PICK_NEWEST
-- The newest rows after the seq :at.
SELECT json_group_array(seq), total(payload_bytes) FROM (
    SELECT seq, payload_bytes FROM outbox_ready WHERE isolated = 0 AND due_at_ms = 0 AND seq > :at
    ORDER BY seq DESC LIMIT :limit)

-- name: PICK_FAIR_SHARE
-- The rows of quiet owners: few, and only while a noisy owner's rows fill the queue.
SELECT json_group_array(seq), total(payload_bytes) FROM (
    SELECT seq, payload_bytes FROM outbox_ready
    WHERE fair_share = 1 AND isolated = 0 AND due_at_ms = 0
    ORDER BY seq LIMIT :limit)

-- name: PICK_ISOLATED
-- The rows that must be sent alone and are due at :at.
SELECT json_group_array(seq), total(payload_bytes) FROM (
    SELECT seq, payload_bytes FROM outbox_ready WHERE isolated = 1 AND due_at_ms <= :at
    ORDER BY due_at_ms, seq LIMIT :limit)

-- name: FAIR_SHARE_WAITS
SELECT EXISTS (SELECT 1 FROM outbox_ready WHERE fair_share = 1 AND isolated = 0 AND due_at_ms = 0)

-- name: SIZES
-- The sizes of these rows, in the same order.
SELECT json_group_array(payload_bytes) FROM json_each(:rows) CROSS JOIN outbox_ready ON seq = value

-- name: CLAIM_LEASE
INSERT INTO outbox_claims (seq, claim, claimed_at_ms, lease_until_ms, payload_bytes, fair_share,
                           isolated, attempts, sends, first_sent_at_ms, history)
SELECT seq, :claim, :now, :lease_until, payload_bytes, fair_share, isolated, attempts, sends,
       first_sent_at_ms, history
FROM json_each(:rows) CROSS JOIN outbox_ready ON seq = value

-- name: CLAIM_TAKE
DELETE FROM outbox_ready WHERE seq IN (SELECT value FROM json_each(:rows))

-- name: CLAIM_TAKE_RANGE
-- The same for a range of seqs, at a third of the cost.
DELETE FROM outbox_ready WHERE seq BETWEEN :first AND :last

-- name: CLAIM_READ
-- The batch in one step: JSON arrays of entries and of their owners, and the payloads joined by
-- commas.
SELECT json_group_array(
           iif(sends = 0 AND attempts = 0 AND isolated = 0 AND meta IS NULL,
               json_array(seq, event_id, accepted_at_ms, user_id),
               json_array(seq, event_id, accepted_at_ms, user_id, attempts,
                          json(iif(isolated, 'true', 'false')), first_sent_at_ms, sends,
                          json(coalesce(meta, '{}'))))),
       json_group_array(owner), CAST(group_concat(payload, ',') AS BLOB)
FROM json_each(:rows) CROSS JOIN outbox_claims ON seq = value CROSS JOIN outbox USING (seq)

-- name: NEXT_DUE
-- When the next row that came back is due or the next lease ends; and the next time, by the wall
-- clock, that a caller asked for. `+:now`, because SQLite compares a bare parameter with the
-- conditions of the partial indexes, and then prepares the statement anew for each value.
SELECT min(at), (SELECT min(due_at_ms) FROM outbox_ready
                 WHERE delayed = 1 AND isolated = 0 AND due_at_ms > +:wall)
FROM (
    SELECT min(due_at_ms) AS at FROM outbox_ready
    WHERE delayed = 0 AND isolated = 0 AND due_at_ms > 0 AND due_at_ms > +:now
    UNION ALL
    SELECT min(due_at_ms) FROM outbox_ready WHERE isolated = 1 AND due_at_ms > +:now
    UNION ALL
    SELECT min(lease_until_ms) FROM outbox_claims)

-- name: SETTLE_DELIVERED
INSERT INTO outbox_done (seq, dead, settled_at_ms, ran_ms, isolated, attempts, sends,
                         first_sent_at_ms, history)
SELECT seq, 0, :now, :ran_ms, isolated, attempts + 1, sends + 1,
       coalesce(first_sent_at_ms, claimed_at_ms), history
FROM json_each(:rows) CROSS JOIN outbox_claims ON seq = value WHERE claim = :claim

-- name: SETTLE_SENT
INSERT INTO outbox_sent (seq, sent_at_ms, isolated, attempts, sends, first_sent_at_ms, history)
SELECT seq, :sent_at, isolated, attempts + 1, sends + 1, coalesce(first_sent_at_ms, claimed_at_ms),
       history
FROM json_each(:rows) CROSS JOIN outbox_claims ON seq = value WHERE claim = :claim

-- name: SETTLE_RETRY
-- :rows is a JSON array of [seq, attempts, due_at_ms, isolated, note]. At 20 notes the oldest goes.
INSERT INTO outbox_ready (seq, attempts, due_at_ms, isolated, payload_bytes, fair_share, sends,
                          first_sent_at_ms, history)
SELECT seq, value ->> 1, value ->> 2, value ->> 3, payload_bytes, fair_share, sends + 1,
       coalesce(first_sent_at_ms, claimed_at_ms),
       iif(value ->> 4 IS NULL, history, json_insert(
           CASE WHEN history IS NULL OR NOT json_valid(history) THEN '[]'
                WHEN json_array_length(history) < 20 THEN history
                ELSE json_remove(history, '$[0]') END,
           '$[#]', json_object('at', :now, 'note', value ->> 4)))
FROM json_each(:rows) CROSS JOIN outbox_claims ON seq = value ->> 0 WHERE claim = :claim

-- name: SETTLE_DEAD
-- :rows is a JSON array of [seq, attempts, reason, detail].
INSERT INTO outbox_done (seq, dead, settled_at_ms, ran_ms, isolated, attempts, sends,
                         first_sent_at_ms, history, reason, detail)
SELECT seq, 1, :now, :ran_ms, isolated, value ->> 1, sends + 1,
       coalesce(first_sent_at_ms, claimed_at_ms), history, value ->> 2, value ->> 3
FROM json_each(:rows) CROSS JOIN outbox_claims ON seq = value ->> 0 WHERE claim = :claim

-- name: SETTLE_ANSWERED
-- :rows is a JSON array of [seq, ULID], of rows that are still under the claim.
UPDATE outbox SET meta = json_set(coalesce(meta, '{}'), '$.answered_id', value ->> 1)
FROM json_each(:rows) WHERE seq = value ->> 0
     AND EXISTS (SELECT 1 FROM outbox_claims WHERE outbox_claims.seq = value ->> 0 AND claim = :claim)

-- name: SETTLE_END
DELETE FROM outbox_claims WHERE seq IN (SELECT value FROM json_each(:rows)) AND claim = :claim

-- name: SETTLE_END_RANGE
DELETE FROM outbox_claims WHERE seq BETWEEN :first AND :last AND claim = :claim

-- name: RELEASE_READY
-- A claim that its relay never received: its bytes have not left.
INSERT INTO outbox_ready (seq, payload_bytes, fair_share, isolated, attempts, sends,
                          first_sent_at_ms, history)
SELECT seq, payload_bytes, fair_share, isolated, attempts, sends, first_sent_at_ms, history
FROM outbox_claims WHERE claim = :claim

-- name: RELEASE_CLAIM
DELETE FROM outbox_claims WHERE claim = :claim

-- name: EXPIRE_READY
-- Claims whose process or sender has ended: the rows are due again and may have been sent.
INSERT INTO outbox_ready (seq, sends, first_sent_at_ms, payload_bytes, fair_share, isolated,
                          attempts, history)
SELECT seq, sends + 1, coalesce(first_sent_at_ms, claimed_at_ms), payload_bytes, fair_share,
       isolated, attempts, history
FROM outbox_claims WHERE lease_until_ms <= :until

-- name: EXPIRE_CLAIMS
DELETE FROM outbox_claims WHERE lease_until_ms <= :until RETURNING claim
