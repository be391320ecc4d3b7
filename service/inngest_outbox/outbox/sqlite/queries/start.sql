-- The start and the stop of the process that writes the file, and the marks of its log.

-- name: FILE_IDENTITY
SELECT file_id, expects_log FROM outbox_meta

-- name: NEW_IDENTITY
-- For a copy: it is another file, and has no log.
UPDATE outbox_meta SET file_id = randomblob(8), expects_log = 0

-- name: EXPECT_LOG
UPDATE outbox_meta SET expects_log = :expected, log_marks = log_marks + 1

-- name: MARK_LOG
-- Writes a page each time; an UPDATE that changes nothing writes none.
UPDATE outbox_meta SET log_marks = log_marks + 1

-- name: RAN_MS
-- A killed service kept its last minute only in the rows that it settled.
SELECT max(ran_ms, coalesce((SELECT max(ran_ms) FROM outbox_done
                             WHERE seq > (SELECT max(seq) FROM outbox) - 10000), 0))
FROM outbox_meta

-- name: KEEP_RAN
UPDATE outbox_meta SET ran_ms = max(ran_ms, :ran_ms)

-- name: KEEP_AGE
-- The rows that are stored now are at least as old as :ran_ms.
INSERT INTO outbox_ages (ran_ms, seq) SELECT :ran_ms, coalesce(max(seq), 0) FROM outbox WHERE true
ON CONFLICT (ran_ms) DO UPDATE SET seq = excluded.seq

-- name: DROP_AGES
-- All that are older than a day but the youngest of these.
DELETE FROM outbox_ages
WHERE ran_ms < (SELECT max(ran_ms) FROM outbox_ages WHERE ran_ms <= :ran_ms - 86400000)

-- name: AGES
SELECT ran_ms, seq FROM outbox_ages ORDER BY ran_ms

-- name: RECOVER_DUE
-- The clock may have been set between two processes, so no delay outlives the process, unless a
-- caller asked for it.
UPDATE outbox_ready SET due_at_ms = 0 WHERE delayed = 0 AND seq IN (
    SELECT seq FROM outbox_ready WHERE delayed = 0 AND isolated = 0 AND due_at_ms > 0
    UNION ALL
    SELECT seq FROM outbox_ready WHERE isolated = 1 AND due_at_ms > 0)

-- name: RECOVER_SENT
-- The clock may have been set back between two processes: a row was answered now at the latest.
UPDATE outbox_sent SET sent_at_ms = :now WHERE sent_at_ms > :now

-- name: TAKE_PREFIX
-- New random bytes for the ids of the rows from :next_seq on.
INSERT INTO outbox_prefixes (from_seq, prefix) VALUES (:next_seq, randomblob(6))
ON CONFLICT (from_seq) DO UPDATE SET prefix = excluded.prefix

-- name: DROP_PREFIXES
-- The prefixes of which no row is left.
DELETE FROM outbox_prefixes WHERE from_seq < (
    SELECT max(from_seq) FROM outbox_prefixes
    WHERE from_seq <= (SELECT coalesce(min(seq), :next_seq) FROM outbox))

-- name: PREFIXES
SELECT from_seq, prefix FROM outbox_prefixes ORDER BY from_seq

-- name: LAST_MOVE
SELECT detail FROM outbox_audit WHERE action = 'move' ORDER BY id DESC LIMIT 1

-- name: STATELESS
-- How many events have no state, and by how many the states outnumber the events: 0 in a whole file.
SELECT (SELECT count(*) FROM outbox WHERE NOT EXISTS (
           SELECT 1 FROM outbox_ready AS place WHERE place.seq = outbox.seq UNION ALL
           SELECT 1 FROM outbox_claims AS place WHERE place.seq = outbox.seq UNION ALL
           SELECT 1 FROM outbox_sent AS place WHERE place.seq = outbox.seq UNION ALL
           SELECT 1 FROM outbox_done AS place WHERE place.seq = outbox.seq)),
       (SELECT count(*) FROM outbox_ready) + (SELECT count(*) FROM outbox_claims)
       + (SELECT count(*) FROM outbox_sent) + (SELECT count(*) FROM outbox_done)
       - (SELECT count(*) FROM outbox)
