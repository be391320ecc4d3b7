-- Rows that Inngest has answered. :seqs is a JSON array.

-- name: COUNT_SENT
SELECT count(*) FROM outbox_sent

-- name: SENT
SELECT seq, event_id, accepted_at_ms, max(0, :now - sent_at_ms) / 1000.0, sends, meta
FROM (SELECT seq, sent_at_ms, sends FROM outbox_sent WHERE seq > :after ORDER BY seq LIMIT :limit)
CROSS JOIN outbox USING (seq)

-- name: CONFIRM
INSERT INTO outbox_done (seq, dead, settled_at_ms, ran_ms, isolated, attempts, sends,
                         first_sent_at_ms, history)
SELECT seq, 0, :now, :ran_ms, isolated, attempts, sends, first_sent_at_ms, history
FROM json_each(:seqs) CROSS JOIN outbox_sent ON seq = value

-- name: RESEND_OWNERS
SELECT owner, count(*) FROM json_each(:seqs) CROSS JOIN outbox_sent ON seq = value
CROSS JOIN outbox USING (seq) GROUP BY owner

-- name: RESEND
-- An answer whose event was lost is no attempt. At 20 notes the oldest goes.
INSERT INTO outbox_ready (seq, payload_bytes, isolated, attempts, sends, first_sent_at_ms, history)
SELECT seq, length(payload), isolated, attempts - 1, sends, first_sent_at_ms, json_insert(
           CASE WHEN history IS NULL OR NOT json_valid(history) THEN '[]'
                WHEN json_array_length(history) < 20 THEN history
                ELSE json_remove(history, '$[0]') END,
           '$[#]', json_object('at', :now, 'note', :note))
FROM json_each(:seqs) CROSS JOIN outbox_sent ON seq = value CROSS JOIN outbox USING (seq)

-- name: SENT_END
DELETE FROM outbox_sent WHERE seq IN (SELECT value FROM json_each(:seqs))
