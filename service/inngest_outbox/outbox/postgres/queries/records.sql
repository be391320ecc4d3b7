-- name: LOAD_DELIVERY
SELECT * FROM outbox.delivery_record

-- name: SAVE_DELIVERY
-- Keeps paused_by.
UPDATE outbox.delivery SET
    state = %(state)s, reason = %(reason)s, batch_window = %(window)s, failures = %(failures)s,
    reopens_at = clock_timestamp() + make_interval(secs => %(reopens_in_seconds)s::float8),
    since_ms = %(since_ms)s, rate = %(rate)s, revision = revision + 1,
    destination = %(destination)s, confirmation = %(confirmation)s
RETURNING state, reason, batch_window, failures,
    greatest(0, extract(epoch FROM reopens_at - clock_timestamp()))::float8,
    since_ms, rate, paused_by, revision, destination, confirmation, pause_reason

-- name: SET_PAUSED
-- Keeps the delivery's own fields. An act that is in the audit changes nothing: the statement is
-- repeated when its answer was lost, and others may have acted since.
WITH noted AS (
    INSERT INTO outbox.audit (act, at_ms, actor, action, detail, ids)
    SELECT %(act)s, (SELECT at_ms FROM outbox.moment), %(actor)s, %(action)s, %(detail)s, %(ids)s
    WHERE NOT EXISTS (SELECT FROM outbox.audit WHERE act = %(act)s) RETURNING act
)
UPDATE outbox.delivery SET paused_by = %(paused_by)s, revision = revision + 1,
    pause_reason = CASE WHEN %(paused_by)s::text IS NULL THEN '' ELSE %(detail)s END,
    reopens_at = CASE WHEN %(ask_now)s THEN clock_timestamp() ELSE reopens_at END
FROM noted

-- name: LOAD_SCOPE
SELECT settings FROM outbox.settings WHERE scope = %(scope)s AND scope_id = %(scope_id)s

-- name: SAVE_SCOPES
-- Replaces the settings of these ids; an act is written where one is given.
WITH saved AS (
    INSERT INTO outbox.settings (scope, scope_id, settings)
    SELECT %(scope)s, scope_id, settings
    FROM unnest(%(scope_ids)s::text[], %(settings)s::text[]) AS given (scope_id, settings)
    ON CONFLICT (scope, scope_id) DO UPDATE SET settings = excluded.settings
), audited AS (
    INSERT INTO outbox.audit (act, at_ms, actor, action, detail, ids)
    SELECT %(act)s, (SELECT at_ms FROM outbox.moment), %(actor)s, %(action)s, %(detail)s, %(ids)s
    WHERE %(act)s::text IS NOT NULL
      AND NOT EXISTS (SELECT FROM outbox.audit WHERE act = %(act)s)
)
UPDATE outbox.meta SET settings_revision = settings_revision + 1 RETURNING settings_revision

-- name: ERASE_RECORDS
-- Removes the settings of an owner, and its name from the audit: `pattern` finds it as a word.
WITH removed AS (
    DELETE FROM outbox.settings WHERE scope = 'user' AND scope_id = %(owner)s RETURNING scope_id
), named AS (
    UPDATE outbox.audit SET
        actor = CASE WHEN actor ~ %(pattern)s THEN %(erased)s ELSE actor END,
        detail = CASE WHEN detail ~ %(pattern)s THEN %(erased)s ELSE detail END
    WHERE actor ~ %(pattern)s OR detail ~ %(pattern)s RETURNING act
), sampled AS (
    UPDATE outbox.samples SET reason = %(erased)s WHERE reason ~ %(pattern)s
), audited AS (
    INSERT INTO outbox.audit (act, at_ms, actor, action, detail, ids)
    SELECT %(act)s, (SELECT at_ms FROM outbox.moment), %(actor)s, %(action)s, %(detail)s, %(ids)s
    WHERE NOT EXISTS (SELECT FROM outbox.audit WHERE act = %(act)s)
), raised AS (
    UPDATE outbox.meta SET settings_revision = settings_revision + 1
)
SELECT (SELECT count(*) FROM removed), (SELECT count(*) FROM named)

-- name: READ_REVISION
SELECT settings_revision FROM outbox.meta

-- name: ENCRYPTED_NAMES
-- The events that can't be appended in SQL from now on.
UPDATE outbox.appending SET encrypted_names = %(names)s::text[]
WHERE encrypted_names <> %(names)s::text[]

-- name: ADD_SAMPLE
-- Every process offers its sample of a minute; the first one counts.
WITH dropped AS (DELETE FROM outbox.samples WHERE at_ms < %(oldest_ms)s)
INSERT INTO outbox.samples (at_ms, waiting, dead, accepted_rate, delivered_rate, state, reason)
VALUES (%(at_ms)s, %(waiting)s, %(dead)s, %(accepted_rate)s, %(delivered_rate)s, %(state)s,
        %(reason)s)
ON CONFLICT (at_ms) DO NOTHING

-- name: SAMPLES
SELECT at_ms, waiting, dead, accepted_rate, delivered_rate, state, reason FROM outbox.samples
WHERE at_ms >= %(from_ms)s AND at_ms <= %(until_ms)s ORDER BY at_ms

-- name: ADD_ACT
-- Safe to repeat: an act has one row.
INSERT INTO outbox.audit (act, at_ms, actor, action, detail, ids)
SELECT %(act)s, (SELECT at_ms FROM outbox.moment), %(actor)s, %(action)s, %(detail)s, %(ids)s
WHERE NOT EXISTS (SELECT FROM outbox.audit WHERE act = %(act)s)
