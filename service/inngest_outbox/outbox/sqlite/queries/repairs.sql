-- Changes by operators' commands, and the purge. :seqs is a JSON array.

-- name: REPLAY
-- A dead or delivered row is pending again, with no attempts counted. At 20 notes the oldest goes.
INSERT INTO outbox_ready (seq, payload_bytes, sends, first_sent_at_ms, history)
SELECT seq, length(payload), sends, first_sent_at_ms, json_insert(
           CASE WHEN history IS NULL OR NOT json_valid(history) THEN '[]'
                WHEN json_array_length(history) < 20 THEN history
                ELSE json_remove(history, '$[0]') END,
           '$[#]', json_object('at', :now, 'note', :note))
FROM json_each(:seqs) CROSS JOIN outbox_done ON seq = value CROSS JOIN outbox USING (seq)

-- name: REPLAY_END
DELETE FROM outbox_done WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: REMOVED_BYTES
-- By owner; rows after :counted_to and up to :newest are not in the counts yet.
SELECT owner, sum(length(payload)) FROM json_each(:seqs) CROSS JOIN outbox ON seq = value
WHERE seq <= :counted_to OR seq > :newest GROUP BY owner

-- name: REMEMBER_LAST
UPDATE outbox_meta SET last_seq = (SELECT max(value) FROM json_each(:seqs))
WHERE last_seq < (SELECT max(value) FROM json_each(:seqs))

-- name: REMOVE_READY
DELETE FROM outbox_ready WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: REMOVE_SENT
DELETE FROM outbox_sent WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: REMOVE_DONE
DELETE FROM outbox_done WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: REMOVE_ROW
DELETE FROM outbox WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: PURGE_PAGE
-- Settled rows come roughly in the order of their acceptance, so a page ends the pass when all its
-- rows were accepted after the limit. What a page removes is overwritten, through the log: at most
-- 2 MiB and a row fit into the room that a nearly full disk has left.
SELECT max(seq), min(accepted_at_ms) FROM (
    SELECT seq, accepted_at_ms, sum(length(payload)) OVER (ORDER BY seq) - length(payload) AS earlier
    FROM (SELECT seq FROM outbox_done WHERE seq > :after ORDER BY seq LIMIT 500)
    CROSS JOIN outbox USING (seq))
WHERE earlier < 2097152

-- name: PAYLOAD_PICK
-- As PURGE_PICK, of the rows that still have a payload.
SELECT json_group_array(seq) FROM outbox_done CROSS JOIN outbox USING (seq)
WHERE seq > :after AND seq <= :upto AND dead = 0 AND settled_at_ms <= :before
  AND ran_ms <= :ran_before AND length(payload) > 0

-- name: REMOVE_PAYLOAD
UPDATE outbox SET payload = x'' WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: PURGE_PICK
-- A row is old by the clock, and by the time that services have run since it was settled: a clock
-- that was wrong for a while removes nothing.
SELECT json_group_array(seq) FROM outbox_done
WHERE seq > :after AND seq <= :upto AND dead = 0 AND settled_at_ms <= :before
  AND ran_ms <= :ran_before
