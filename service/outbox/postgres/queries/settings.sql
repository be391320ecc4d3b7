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

-- name: READ_REVISION
SELECT settings_revision FROM outbox.meta
