-- name: INBOX_PAGE
-- What was appended since a snapshot, after a position in the order of transactions: at most 1,000
-- rows, and 8 MB unless one row is larger. Each with the snapshot of this look; nothing but that
-- where no row is found.
WITH found AS MATERIALIZED (
    SELECT i.* FROM unnest(%(open)s::text[]) AS o(xid) CROSS JOIN LATERAL (
        SELECT * FROM outbox.inbox WHERE inbox.xid = o.xid::xid8 AND no > CASE
            WHEN o.xid::xid8 > %(xid)s::text::xid8 THEN 0
            WHEN o.xid::xid8 = %(xid)s::text::xid8 THEN %(no)s::bigint
            ELSE 9223372036854775807 END
        ORDER BY no LIMIT 1000) AS i
    UNION ALL
    (SELECT * FROM outbox.inbox
     WHERE (xid, no) > (%(from_xid)s::text::xid8, %(from_no)s::bigint) ORDER BY xid, no LIMIT 1000)
), page AS (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY xid, no ROWS UNBOUNDED PRECEDING) AS running
    FROM (SELECT * FROM found ORDER BY xid, no LIMIT 1000) AS f
)
SELECT xid::text, no, accepted_at_ms, event_id, name, owner, user_id, idempotency_key, data,
       rest::text, pg_current_snapshot()::text
FROM page WHERE running <= 8000000 OR running = octet_length(data)
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, pg_current_snapshot()::text
WHERE NOT EXISTS (SELECT FROM found)

-- name: INBOX_LEFT
-- The first rows of each owner that were left over: at most 100 of each, of the next owners.
WITH RECURSIVE owners AS (
    (SELECT owner, 1 AS n FROM outbox.inbox WHERE left_over AND owner > %(after)s::text
     ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (SELECT owner FROM outbox.inbox WHERE left_over AND owner > owners.owner
            ORDER BY owner LIMIT 1), n + 1
    FROM owners WHERE owner IS NOT NULL AND n < %(owners)s::int
)
SELECT i.xid::text, i.no, i.accepted_at_ms, i.event_id, i.name, i.owner, i.user_id,
       i.idempotency_key, i.data, i.rest::text, pg_current_snapshot()::text
FROM owners CROSS JOIN LATERAL (
    SELECT * FROM outbox.inbox WHERE left_over AND inbox.owner = owners.owner
    ORDER BY xid, no LIMIT 100
) AS i

-- name: INBOX_LEAVE
-- These rows stay until there is room for them. OFFSET 0, here and below, has each row looked up: by
-- its figures a table of dead rows is small, and the planner would rather read all of its index.
UPDATE outbox.inbox SET left_over = true
WHERE NOT left_over AND ctid = ANY(ARRAY(
    SELECT i.ctid FROM unnest(%(xids)s::text[], %(nos)s::bigint[]) AS d(xid, no), LATERAL (
        SELECT ctid FROM outbox.inbox WHERE xid = d.xid::xid8 AND no = d.no OFFSET 0) AS i))

-- name: INBOX_DROP
-- Removes rows whose events are stored already.
DELETE FROM outbox.inbox WHERE ctid = ANY(ARRAY(
    SELECT i.ctid FROM unnest(%(xids)s::text[], %(nos)s::bigint[]) AS d(xid, no), LATERAL (
        SELECT ctid FROM outbox.inbox WHERE xid = d.xid::xid8 AND no = d.no OFFSET 0) AS i))

-- name: INBOX_BURY
-- An event that can't be sent: from the inbox it goes to the dead ones, under the second id and
-- payload where an earlier event has the first id.
WITH named AS (
    SELECT count(*)::int + 1 AS place FROM outbox.events WHERE event_id = (%(ids)s::text[])[1]
), gone AS (
    DELETE FROM outbox.inbox WHERE xid = %(xid)s::text::xid8 AND no = %(no)s::bigint
    RETURNING name, owner, nullif(coalesce(user_id, ''), outbox.user_of(owner)) AS user_id,
              accepted_at_ms
), put AS (
    INSERT INTO outbox.events (event_id, name, owner, user_id, accepted_at_ms, payload)
    SELECT (%(ids)s::text[])[place], name, owner, user_id, accepted_at_ms,
           (%(payloads)s::bytea[])[place]
    FROM gone, named RETURNING seq, owner, octet_length(payload) AS payload_bytes
), done AS (
    INSERT INTO outbox.done (seq, settled_at_ms, attempts, sends, isolated, dead, reason, detail)
    SELECT seq, (SELECT at_ms FROM outbox.moment), 0, 0, false, true, %(reason)s::text, %(detail)s::text
    FROM put
)
INSERT INTO outbox.changes (owners, stored, stored_bytes, dead)
SELECT ARRAY[owner], '{1}', ARRAY[payload_bytes], 1 FROM put

-- name: INBOX_NOTED
-- What was noted last, or nothing where the note is of another server.
SELECT seen::text FROM outbox.turns
WHERE name = 'inbox' AND pg_snapshot_xmax(seen) <= pg_snapshot_xmax(pg_current_snapshot())

-- name: INBOX_SEEN
-- Notes that what this snapshot shows is out of the inbox, but what is left over.
UPDATE outbox.turns SET seen = %(seen)s::text::pg_snapshot
WHERE name = 'inbox' AND holder = %(holder)s::text

-- name: INBOX_DISCARD
-- Removes events from the inbox that their owner or an operator takes back.
WITH gone AS (
    DELETE FROM outbox.inbox AS i USING outbox.arrived AS a
    WHERE i.xid = a.xid AND i.no = a.no AND a.event_id = ANY(%(ids)s::text[])
      AND (%(owner)s::text IS NULL OR a.owner = %(owner)s)
      AND coalesce(%(state)s::text, 'pending') = 'pending'
    RETURNING i.event_id
), audited AS (
    INSERT INTO outbox.audit (act, at_ms, actor, action, detail, ids)
    SELECT %(act)s, (SELECT at_ms FROM outbox.moment), %(actor)s, 'discard', %(chosen)s,
           json_agg(event_id)::text FROM gone HAVING count(*) > 0
)
SELECT DISTINCT event_id FROM gone
