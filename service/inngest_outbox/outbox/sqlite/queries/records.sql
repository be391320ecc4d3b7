-- The delivery record, the values of scopes, samples and the audit.

-- name: DELIVERY
-- The fields of a DeliveryRecord in their order. When the clock was set back after the save, the wait
-- can't be known and is over.
SELECT state, reason, batch_window, failures,
       max(0, iif(:now < since_ms, 0, reopens_at_ms) - :now) / 1000.0, since_ms, rate, paused_by,
       revision, destination, confirmation, pause_reason
FROM outbox_delivery

-- name: SAVE_DELIVERY
UPDATE outbox_delivery SET state = :state, reason = :reason, batch_window = :window,
       failures = :failures, reopens_at_ms = :reopens_at_ms, since_ms = :since_ms, rate = :rate,
       revision = revision + 1, destination = :destination, confirmation = :confirmation

-- name: SET_PAUSED
UPDATE outbox_delivery SET paused_by = :paused_by, pause_reason = :reason, revision = revision + 1,
       reopens_at_ms = iif(:ask_now, 0, reopens_at_ms)

-- name: LOAD_SCOPE
SELECT settings FROM outbox_settings WHERE scope = :scope AND scope_id = :scope_id

-- name: SAVE_SCOPE
INSERT INTO outbox_settings (scope, scope_id, settings) VALUES (:scope, :scope_id, :settings)
ON CONFLICT (scope, scope_id) DO UPDATE SET settings = excluded.settings

-- name: ERASE_SETTINGS
DELETE FROM outbox_settings WHERE scope = 'user' AND scope_id = :owner

-- name: ERASE_NAME
-- erased() is `erased_words`; most rows do not have the user's id at all.
UPDATE outbox_audit SET actor = erased(actor, :owner), detail = erased(detail, :owner)
WHERE (instr(actor, :user_id) > 0 OR instr(detail, :user_id) > 0)
  AND (erased(actor, :owner) <> actor OR erased(detail, :owner) <> detail)

-- name: ERASE_REASON
-- Inngest's words may quote an event.
UPDATE outbox_samples SET reason = erased(reason, :owner) WHERE instr(reason, :user_id) > 0

-- name: ADD_SAMPLE
INSERT INTO outbox_samples (at_ms, waiting, dead, accepted_rate, delivered_rate, state, reason)
VALUES (:at_ms, :waiting, :dead, :accepted_rate, :delivered_rate, :state, :reason)
ON CONFLICT (at_ms) DO NOTHING

-- name: DROP_SAMPLES
DELETE FROM outbox_samples WHERE at_ms < :oldest_ms

-- name: SAMPLES
SELECT at_ms, waiting, dead, accepted_rate, delivered_rate, state, reason FROM outbox_samples
WHERE at_ms >= :from_ms AND at_ms <= :until_ms ORDER BY at_ms

-- name: ADD_AUDIT
INSERT INTO outbox_audit (act, at_ms, actor, action, detail, ids)
VALUES (:act, :at_ms, :actor, :action, :detail, :ids)

-- name: AUDIT
-- The newest acts, then all of their rows.
WITH newest AS (
    SELECT act, max(id) AS last FROM outbox_audit
    WHERE :event IS NULL OR instr(ids, :event) > 0
    GROUP BY act ORDER BY last DESC LIMIT :limit
)
SELECT act, at_ms, actor, action, detail, ids
FROM newest CROSS JOIN outbox_audit USING (act) ORDER BY last DESC, id
