-- name: TRANSFER_PAGE
-- Events in their order, without their bytes. A claimed row is given as the pending row that it
-- becomes when its lease ends. Of those that were never sent, a time to come is their sender's.
SELECT r.seq, r.event_id, r.name, r.owner, r.user_id, r.accepted_at_ms,
       CASE r.state WHEN 'delivering' THEN 'pending' ELSE r.state END, r.attempts,
       r.sends + (r.state = 'delivering')::int, r.isolated, r.first_sent_at_ms,
       coalesce(r.settled_at_ms, r.sent_at_ms), r.reason, r.detail,
       (SELECT at_ms FROM outbox.histories h WHERE h.seq = r.seq),
       (SELECT notes FROM outbox.histories h WHERE h.seq = r.seq), r.idempotency_key,
       encode(r.idempotency_digest, 'hex'), encode(sha256(e.payload), 'hex'), r.meta::text,
       CASE WHEN r.sends = 0 AND r.due_at > (SELECT at FROM outbox.moment)
           THEN extract(epoch FROM r.due_at) * 1000 ELSE 0 END::bigint
FROM (SELECT seq, payload FROM outbox.events WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s) AS e
CROSS JOIN LATERAL (SELECT * FROM outbox.rows WHERE rows.seq = e.seq OFFSET 0) AS r
ORDER BY r.seq

-- name: TRANSFER_PAYLOADS
SELECT event_id, payload FROM outbox.events WHERE event_id = ANY(%(ids)s::text[])

-- name: TRANSFER_WRITE
-- A page of events in the order given, and their places. A given array has one element an event;
-- those of the notes run in step with each other.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(
        %(id)s::text[], %(name)s::text[], %(owner)s::text[], %(user_id)s::text[],
        %(accepted_at_ms)s::bigint[], %(meta)s::text[], %(key)s::text[], %(key_digest)s::text[],
        %(payload)b::bytea[], %(state)s::text[], %(settled_at_ms)s::bigint[],
        %(first_sent_at_ms)s::bigint[], %(attempts)s::int[], %(sends)s::int[],
        %(isolated)s::boolean[], %(reason)s::text[], %(detail)s::text[], %(due_at_ms)s::bigint[]
    ) WITH ORDINALITY AS u (id, name, owner, user_id, accepted_at_ms, meta, key, key_digest, payload,
        state, settled_at_ms, first_sent_at_ms, attempts, sends, isolated, reason, detail, due_at_ms,
        place)
), put AS (
    INSERT INTO outbox.events (event_id, name, owner, user_id, accepted_at_ms, meta, idempotency_key,
                               idempotency_digest, payload)
    SELECT id, name, owner, nullif(user_id, outbox.user_of(owner)), accepted_at_ms, meta::jsonb, key,
           decode(key_digest, 'hex'), payload
    FROM given ORDER BY place RETURNING seq, event_id
), placed AS MATERIALIZED (
    SELECT put.seq, g.*, octet_length(payload) AS size FROM given AS g JOIN put ON event_id = id
), ready AS (
    INSERT INTO outbox.ready (seq, first_sent_at_ms, attempts, sends, payload_bytes, isolated, due_at)
    SELECT seq, first_sent_at_ms, attempts, sends, size, isolated,
           greatest(at, to_timestamp(due_at_ms / 1000.0))
    FROM placed, outbox.moment WHERE state = 'pending' ORDER BY seq
), sent AS (
    INSERT INTO outbox.sent SELECT seq, settled_at_ms, first_sent_at_ms, attempts, sends, isolated
    FROM placed WHERE state = 'sent'
), done AS (
    INSERT INTO outbox.done SELECT seq, settled_at_ms, first_sent_at_ms, attempts, sends, isolated,
        state = 'dead', reason, detail FROM placed WHERE state IN ('delivered', 'dead')
)
INSERT INTO outbox.notes (seq, at_ms, note)
SELECT seq, at_ms, note
FROM unnest(%(noted)s::text[], %(noted_at_ms)s::bigint[], %(note)s::text[])
    WITH ORDINALITY AS n (noted, at_ms, note, nth)
JOIN placed ON id = noted ORDER BY nth

-- name: TRANSFER_CLEAR
-- Removes all events.
WITH ready AS (DELETE FROM outbox.ready), claims AS (DELETE FROM outbox.claims),
     sent AS (DELETE FROM outbox.sent), done AS (DELETE FROM outbox.done),
     notes AS (DELETE FROM outbox.notes)
DELETE FROM outbox.events

-- name: TRANSFER_METADATA
-- Replaces settings, operator actions but moves, and the pause.
WITH no_settings AS (
    DELETE FROM outbox.settings
), no_acts AS (
    DELETE FROM outbox.audit WHERE action <> 'move'
), revised AS (
    UPDATE outbox.meta SET settings_revision = settings_revision + 1
), acts AS (
    INSERT INTO outbox.audit (act, at_ms, actor, action, detail, ids)
    SELECT * FROM unnest(%(acts)s::text[], %(at_ms)s::bigint[], %(actors)s::text[],
                         %(actions)s::text[], %(details)s::text[], %(ids)s::text[])
)
UPDATE outbox.delivery SET paused_by = %(paused_by)s, pause_reason = %(pause_reason)s,
    revision = revision + 1

-- name: TRANSFER_SETTINGS
INSERT INTO outbox.settings
SELECT * FROM unnest(%(scopes)s::text[], %(scope_ids)s::text[], %(settings)s::text[])

-- name: SERVED
-- Whether a service serves the outbox: one has the turn of the inbox, which ends as TAKE_TURN says.
SELECT until BETWEEN statement_timestamp()
                 AND statement_timestamp() + make_interval(secs => %(seconds)s::float8 * 2)
FROM outbox.turns WHERE name = 'inbox'

-- name: IN_INBOX
SELECT count(*) FROM outbox.inbox
