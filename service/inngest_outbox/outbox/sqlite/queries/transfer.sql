-- An outbox as a move and a recovery see it. A row under a claim is given as the pending row that it
-- becomes when its process is gone. :ids is a JSON array.

-- name: TRANSFER_PAGE
-- At most :limit events after :after and up to :upto, in their order.
SELECT seq, event_id, name, owner, user_id, accepted_at_ms,
       iif(state = 'delivering', 'pending', state), attempts, sends + (state = 'delivering'),
       isolated, first_sent_at_ms, coalesce(settled_at_ms, sent_at_ms), reason, detail, history,
       meta, idempotency_key, idempotency_digest, iif(delayed, due_at_ms, 0), payload,
       (SELECT prefix FROM outbox_prefixes WHERE from_seq <= seq ORDER BY from_seq DESC LIMIT 1)
FROM (SELECT seq, payload FROM outbox) CROSS JOIN outbox_rows USING (seq)
WHERE seq > :after AND seq <= :upto ORDER BY seq LIMIT :limit

-- name: TRANSFER_STATELESS
-- An event whose state can't be read is pending, and may have been sent.
SELECT seq, event_id, name, owner, user_id, accepted_at_ms, 'pending', 0, 1, 0, accepted_at_ms,
       NULL, NULL, NULL, NULL, meta, idempotency_key, idempotency_digest,
       coalesce((SELECT due_at_ms FROM outbox_ready WHERE seq = :seq AND delayed), 0), payload,
       (SELECT prefix FROM outbox_prefixes WHERE from_seq <= :seq ORDER BY from_seq DESC LIMIT 1)
FROM outbox WHERE seq = :seq

-- name: TRANSFER_ALONE
-- The same where not even the time can be read until which it waits.
SELECT seq, event_id, name, owner, user_id, accepted_at_ms, 'pending', 0, 1, 0, accepted_at_ms,
       NULL, NULL, NULL, NULL, meta, idempotency_key, idempotency_digest, 0, payload,
       (SELECT prefix FROM outbox_prefixes WHERE from_seq <= :seq ORDER BY from_seq DESC LIMIT 1)
FROM outbox WHERE seq = :seq

-- name: TRANSFER_PAYLOADS
SELECT event_id, payload FROM outbox WHERE event_id IN (SELECT value FROM json_each(:ids))

-- name: EVENTLESS
-- The seqs after :after and up to :upto that have a state and no event: a damaged file has them.
SELECT seq, min(state) FROM (
    SELECT seq, 'pending' AS state FROM outbox_ready
    UNION ALL SELECT seq, 'delivering' FROM outbox_claims
    UNION ALL SELECT seq, 'sent' FROM outbox_sent
    UNION ALL SELECT seq, iif(dead, 'dead', 'delivered') FROM outbox_done
) AS named
WHERE seq > :after AND seq <= :upto
  AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.seq = named.seq)
GROUP BY seq ORDER BY seq

-- name: WRITE
INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, meta, idempotency_key,
                    idempotency_digest, payload)
VALUES (:id, :name, :owner, :user_id, :accepted_at_ms, :meta, :key, :key_digest, :payload)

-- name: WRITE_READY
INSERT INTO outbox_ready (seq, payload_bytes, due_at_ms, delayed, isolated, attempts, sends,
                          first_sent_at_ms, history)
SELECT seq, length(payload), :due_at_ms, :due_at_ms > 0, :isolated, :attempts, :sends,
       :first_sent_at_ms, :history
FROM outbox WHERE event_id = :id

-- name: WRITE_SENT
INSERT INTO outbox_sent (seq, sent_at_ms, isolated, attempts, sends, first_sent_at_ms, history)
SELECT seq, :settled_at_ms, :isolated, :attempts, :sends, :first_sent_at_ms, :history
FROM outbox WHERE event_id = :id

-- name: WRITE_DONE
INSERT INTO outbox_done (seq, dead, settled_at_ms, ran_ms, isolated, attempts, sends,
                         first_sent_at_ms, history, reason, detail)
SELECT outbox.seq, :dead, :settled_at_ms, ran_ms, :isolated, :attempts, :sends, :first_sent_at_ms,
       :history, :reason, :detail
FROM outbox, outbox_meta WHERE event_id = :id

-- name: DROP_SETTINGS
DELETE FROM outbox_settings

-- name: DROP_AUDIT
DELETE FROM outbox_audit WHERE action <> 'move'

-- name: TRANSFER_PAUSE
UPDATE outbox_delivery SET paused_by = :paused_by, pause_reason = :reason, revision = revision + 1
