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
